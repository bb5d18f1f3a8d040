"""One file per paper: a training objective and a way to score pixels."""

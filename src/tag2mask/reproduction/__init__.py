"""Run the rows of the papers' tables and print their numbers beside ours."""

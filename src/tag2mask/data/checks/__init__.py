"""What `tag2mask check` computes about a data set, one idea per file."""

"""What users set: files, options, parameters of the command line, and paths."""

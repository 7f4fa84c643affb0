"""Settings of the user: configuration files, options, types of parameters, and paths."""

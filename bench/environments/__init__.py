"""Where workers are executed: this interpreter, another one, one behind a command prefix, or a managed environment."""

"""The command line: one thin entry point a job."""

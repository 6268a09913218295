"""What is said about a model that its weights do not tell: by the user, the file, a name."""

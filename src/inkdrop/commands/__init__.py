"""The commands: one file or folder for each verb, with the name that the user types."""

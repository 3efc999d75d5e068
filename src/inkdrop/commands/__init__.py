"""The commands, one file or folder for each verb, named as it is typed."""

"""Work of several processes on the same run."""

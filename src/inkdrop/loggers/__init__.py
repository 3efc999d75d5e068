"""Loggers of metrics and pictures: files of the run, TensorBoard, and Weights & Biases."""

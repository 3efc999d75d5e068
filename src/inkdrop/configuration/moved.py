"""Modules that files of earlier versions name, and where their content is today."""

MOVED = {
    "experiment": "commands.check",
    "masking": "configuration.secrets",
    "metrics.distances": "metrics.frechet",
    "self_conditioning": "denoiser",
}

"""Old names of modules in files of earlier versions, and their names today."""

MOVED = {
    "experiment": "commands.check",
    "masking": "configuration.secrets",
    "metrics.distances": "metrics.frechet",
    "self_conditioning": "denoiser",
}

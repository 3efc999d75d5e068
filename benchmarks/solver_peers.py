"""Other projects' solvers on an exact problem, in x = x_0 + sigma eps whatever the schedule.

They are needed for these comparisons only: `pip install --no-deps k-diffusion azula smalldiffusion torchsde torchdiffeq
einops jaxtyping wadler-lindig trampoline boltons` beside diffusers. What their packages import beyond their sampling
code is replaced by empty modules.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import math
import sys
import types
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

Denoise: TypeAlias = Callable[[Tensor, float], Tensor]
Solver: TypeAlias = Callable[[Denoise, Tensor, Tensor], Tensor]  # (denoise, x at sigmas[0], sigmas with a last 0)
Grid: TypeAlias = Callable[[int], Tensor]  # number of network calls -> sigmas from the largest down, then 0


def _package(name: str) -> Any:
    """A module `package.part` without running the package's own `__init__`."""
    package, _, _ = name.partition(".")
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"the comparison needs {package}: {__doc__}")
        parent = types.ModuleType(package)
        parent.__path__ = list(spec.submodule_search_locations)
        sys.modules[package] = parent
    if importlib.util.find_spec("accelerate") is None and "accelerate" not in sys.modules:
        stub = types.ModuleType("accelerate")
        stub.__spec__ = importlib.machinery.ModuleSpec("accelerate", None)
        stub.Accelerator = object  # type: ignore[attr-defined]
        sys.modules["accelerate"] = stub
    return importlib.import_module(name)


def karras(largest: float, smallest: float, calls: int, rho: float = 7.0) -> Tensor:
    """Even steps in sigma^(1 / rho), then 0. Source: Karras et al. 2022, arXiv 2206.00364, equation 5."""
    roots = torch.linspace(largest ** (1 / rho), smallest ** (1 / rho), calls, dtype=torch.float64)
    return torch.cat([roots**rho, roots.new_zeros(1)])


def exponential(largest: float, smallest: float, calls: int) -> Tensor:
    """Even steps in log(sigma), then 0."""
    logs = torch.linspace(math.log(largest), math.log(smallest), calls, dtype=torch.float64)
    return torch.cat([logs.exp(), logs.new_zeros(1)])


# diffusers -----------------------------------------------------------------------------------------------------------


def diffusers_scheduler(name: str, sigmas: Tensor, **options: Any) -> Any:
    """A scheduler that walks `sigmas` in float64; its own tables of sigmas and timesteps are replaced."""
    import diffusers

    scheduler = getattr(diffusers, name)(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **options)
    count = len(sigmas) - 1
    scheduler.set_timesteps(count)
    scheduler.sigmas = sigmas
    if getattr(scheduler, "order", 1) == 2:
        scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    scheduler.timesteps = torch.arange(len(scheduler.sigmas) - 1, 0, -1, dtype=torch.float64)
    scheduler.set_begin_index(0)
    return scheduler


def diffusers_unit(name: str, denoise: Denoise, x: Tensor, sigmas: Tensor, **options: Any) -> Tensor:
    """Schedulers whose state has alpha^2 + sigma^2 = 1."""
    scheduler = diffusers_scheduler(name, sigmas, prediction_type="sample", **options)
    x = x / (1 + sigmas[0] ** 2).sqrt()
    for number, time in enumerate(scheduler.timesteps):
        sigma = sigmas[number]
        x = scheduler.step(denoise(x * (1 + sigma**2).sqrt(), float(sigma)), time, x).prev_sample
    return x


def diffusers_plain(name: str, denoise: Denoise, x: Tensor, sigmas: Tensor, **options: Any) -> Tensor:
    """Schedulers whose state has alpha = 1."""
    scheduler = diffusers_scheduler(name, sigmas, **options)
    for number, time in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[number]
        if scheduler.step_index is None:
            scheduler._init_step_index(time)
        scheduler.is_scale_input_called = True
        x = scheduler.step((x - denoise(x, float(sigma))) / sigma, time, x).prev_sample
    return x


def diffusers_table(name: str, denoise: Denoise, x: Tensor, calls: int, spacing: str, **options: Any) -> Tensor:
    """Schedulers that only know the table of betas and its timesteps."""
    import diffusers

    scheduler = getattr(diffusers, name)(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        timestep_spacing=spacing,
        prediction_type="epsilon",
        **options,
    )
    scheduler.set_timesteps(calls)
    bars = scheduler.alphas_cumprod.double()
    x = x * bars[-1].sqrt()
    for time in scheduler.timesteps:
        alpha, sigma = float(bars[int(time)].sqrt()), float((1 - bars[int(time)]).sqrt())
        x = scheduler.step((x - alpha * denoise(x / alpha, sigma / alpha)) / sigma, time, x).prev_sample
    return x


def _pndm(denoise: Denoise, x: Tensor, calls: int) -> Tensor:
    return diffusers_table("PNDMScheduler", denoise, x, calls - 1, "leading", skip_prk_steps=True)


# k-diffusion, smalldiffusion ------------------------------------------------------------------------------------------


def k_diffusion(name: str, denoise: Denoise, x: Tensor, sigmas: Tensor, **options: Any) -> Tensor:
    """k-diffusion's function `sample_<name>`."""
    sample = getattr(_package("k_diffusion.sampling"), f"sample_{name}")
    if "noise_sampler" in options:
        options["noise_sampler"].like = x
    return sample(lambda y, sigma: denoise(y, float(sigma[0])), x, sigmas, disable=True, **options)


class _SmallModel:
    def __init__(self, denoise: Denoise):
        self.denoise = denoise

    def eval(self) -> None: ...

    def predict_eps_cfg(self, x: Tensor, sigma: Tensor, cond: object, scale: float) -> Tensor:
        return (x - self.denoise(x, float(sigma))) / sigma

    def rand_input(self, count: int) -> Tensor:
        return torch.zeros(())


def smalldiffusion(gam: float, denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """smalldiffusion's averaged gradient estimate; gam = 1 is DDIM."""
    samples = _package("smalldiffusion.diffusion").samples
    *_, last = samples(_SmallModel(denoise), sigmas, gam=gam, mu=0.0, xt=x, accelerator=object())
    return last


# azula ----------------------------------------------------------------------------------------------------------------


class _AzulaDenoiser:
    def __init__(self, denoise: Denoise, schedule: Any):
        self.denoise, self.schedule = denoise, schedule

    def __call__(self, x: Tensor, t: Tensor) -> Any:
        alpha, sigma = self.schedule(t)
        return types.SimpleNamespace(mean=self.denoise(x / alpha, float(sigma / alpha)))


def azula(name: str, order: int | None, schedule: Any, denoise: Denoise, x: Tensor, calls: int) -> Tensor:
    """An azula sampler on even times of one of its schedules; it ends at the schedule's smallest sigma."""
    sample = _package("azula.sample")
    options = {} if order is None else {"order": order}
    sampler = getattr(sample, name)(
        _AzulaDenoiser(denoise, schedule), steps=calls, silent=True, dtype=torch.float64, **options
    )
    alpha, _ = schedule(torch.tensor(1.0, dtype=torch.float64))
    last, _ = schedule(torch.tensor(0.0, dtype=torch.float64))
    return sampler(x * alpha) / last


# iPNDM ----------------------------------------------------------------------------------------------------------------

_ADAMS = [[1.0], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]


def ipndm(order: int, denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """Adams-Bashforth weights of even steps on the noise, lower orders at first; here on any sigmas.

    Source: Zhang and Chen 2023, arXiv 2204.13902, section 3.3 and appendix.
    """
    slopes: list[Tensor] = []
    for sigma, following in pairwise(sigmas):
        slopes = [(x - denoise(x, float(sigma))) / sigma, *slopes][:order]
        weights = _ADAMS[len(slopes) - 1]
        x = x + (following - sigma) * sum(
            (w * slope for w, slope in zip(weights, slopes, strict=True)), x.new_zeros(())
        )
    return x


# The list -------------------------------------------------------------------------------------------------------------


def _same(calls: int) -> int:
    return calls


def _two(calls: int) -> int:
    return (calls + 1) // 2  # two calls a step, one in the last


def _unit(name: str, **options: Any) -> tuple[Solver, Callable[[int], int]]:
    return partial(diffusers_unit, f"{name}MultistepScheduler", **options), _same


SOLVERS: dict[str, tuple[Solver, Callable[[int], int]]] = {  # with the number of sigmas that a number of calls allows
    "diffusers DPM++2M": _unit("DPMSolver", solver_order=2),
    "diffusers DPM++3M": _unit("DPMSolver", solver_order=3),
    "diffusers UniPC2": _unit("UniPC", solver_order=2),
    "diffusers UniPC3": _unit("UniPC", solver_order=3),
    "diffusers UniPC3 bh1": _unit("UniPC", solver_order=3, solver_type="bh1"),
    "diffusers DEIS2": _unit("DEIS", solver_order=2),
    "diffusers DEIS3": _unit("DEIS", solver_order=3),
    "diffusers Euler": (partial(diffusers_plain, "EulerDiscreteScheduler"), _same),
    "diffusers LMS": (partial(diffusers_plain, "LMSDiscreteScheduler"), _same),
    "diffusers Heun": (partial(diffusers_plain, "HeunDiscreteScheduler"), _two),
    "k-diffusion DPM++2M": (partial(k_diffusion, "dpmpp_2m"), _same),
    "k-diffusion LMS": (partial(k_diffusion, "lms"), _same),
    "k-diffusion Heun": (partial(k_diffusion, "heun"), _two),  # on the rho-7 grid this is EDM's algorithm
    "k-diffusion DPM-2": (partial(k_diffusion, "dpm_2"), _two),
    "k-diffusion DPM++2S": (partial(k_diffusion, "dpmpp_2s_ancestral", eta=0.0), _two),
    "smalldiffusion gam=2": (partial(smalldiffusion, 2.0), _same),
    "iPNDM-3": (partial(ipndm, 3), _same),
    "iPNDM-4": (partial(ipndm, 4), _same),
}
ENDS_EARLY = ("smalldiffusion gam=2", "iPNDM-3", "iPNDM-4")  # their own code stops at the smallest sigma
AZULA: list[tuple[str, int | None]] = [
    *((f"{kind}ABSampler", order) for kind in ("xE", "v") for order in (2, 3, 4)),
    *((f"{kind}ABSampler", order) for kind in ("z", "zE") for order in (2, 3)),
    ("REABSampler", 2),
    ("DDIMSampler", None),
]
# Parts of the names of what came within a quarter of the best in some cell of the tuning mixtures.
CONTENDERS = (
    *("zEAB3, VE to", "vAB3, VE to", "xEAB3, VE to", "zEAB3, rect", "vAB3, rect", "xEAB3, rect", "vAB2, rect"),
    *("REAB2, rect", "zEAB2, rect", "UniPC3, exp", "UniPC2, exp", "DPM++3M, exp", "DPM++2M, exp", "gam=2, exp"),
    *("iPNDM-4, karras", "iPNDM-3, exp", "iPNDM-4, exp", "diffusers LMS, exp", "diffusers LMS, uni", "UniPC3, uni"),
    "UniPC2, uni",
)


def contends(name: str) -> bool:
    """Whether a configuration is worth its time where a call is slow."""
    return any(part in name for part in CONTENDERS) and "1e-4" not in name


def published(name: str) -> bool:
    """Whether a configuration is one that its project or paper proposes: iPNDM has order 4 and the rho-7 grid.

    The others are combinations made here: iPNDM on other grids or of order 3, and azula's methods of order 4.
    """
    if name.startswith("iPNDM"):
        return name.startswith("iPNDM-4, karras")
    return not (name.startswith("azula") and "AB4" in name)


def _table(sigmas: Tensor, spacing: str, calls: int) -> Tensor:
    """Even steps in the timesteps of a table of sigmas, then 0. Source: Lin et al. 2024, arXiv 2305.08891, table 2."""
    last = len(sigmas) - 1
    steps = {
        "leading": torch.arange(calls - 1, -1, -1) * (len(sigmas) // calls),
        "linspace": torch.linspace(last, 0, calls).round(),
        "trailing": torch.linspace(last, -1, calls + 1).round()[:-1],
    }[spacing]
    return torch.cat([sigmas[steps.long()], sigmas.new_zeros(1)])


def _flow(shift: float, calls: int) -> Tensor:
    """Even steps in t from 0.999, shifted towards noise, then 0. Source: Esser et al. 2024, arXiv 2403.03206, 23."""
    t = torch.linspace(0.999, 0.0, calls + 1, dtype=torch.float64)
    return shift * t / (1 - t)


def configurations(kind: str, largest: float, smallest: float) -> dict[str, tuple[float, Callable[..., Tensor]]]:
    """Every peer configuration for a schedule: its name -> (first sigma, `(denoise, x, calls) -> x_0`).

    `largest` and `smallest` are the schedule's own ends. Where the largest is infinite peers begin at one of two finite
    ones, and azula, whose grids are continuous, may also go below the smallest.
    """
    firsts = [999.0, 80.0] if math.isinf(largest) else [largest]
    grids: dict[str, tuple[float, Grid]] = {}
    for first in firsts:
        label = f" from {first:.0f}" if len(firsts) > 1 else ""
        grids[f"karras{label}"] = first, partial(karras, first, smallest)
        grids[f"exponential{label}"] = first, partial(exponential, first, smallest)
    if kind == "VP":
        bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
        for spacing in ("leading", "linspace", "trailing"):
            grids[spacing] = largest, partial(_table, (1 / bars - 1).sqrt(), spacing)
    if kind == "flow":
        grids["uniform"] = 999.0, partial(_flow, 1.0)
        grids["shift 3"] = 2997.0, partial(_flow, 3.0)
    made: dict[str, tuple[float, Callable[..., Tensor]]] = {}
    for name, (solver, count) in SOLVERS.items():
        for grid_name, (first, grid) in grids.items():
            made[f"{name}, {grid_name}"] = first, partial(_on_grid, solver, grid, count, False)
            if name in ENDS_EARLY:
                made[f"{name}, {grid_name}, no 0"] = first, partial(_on_grid, solver, grid, count, True)
    if kind == "VP":
        made["diffusers PNDM, leading"] = largest, _pndm
    noise = _package("azula.noise")
    for name, order in AZULA:
        for first in firsts:
            for label, schedule in {
                f"VE to {smallest:.2g}": noise.VESchedule(smallest, first),
                "VE to 1e-3": noise.VESchedule(1e-3, first),
                "VE to 1e-4": noise.VESchedule(1e-4, first),
                "rectified": noise.RectifiedSchedule(1 / first, 1e-3),
            }.items():
                label = f"azula {name[:-7]}{order or ''}, {label} from {first:.0f}"
                made[label] = first, partial(azula, name, order, schedule)
    return made


def _on_grid(
    solver: Solver, grid: Grid, count: Callable[[int], int], stops: bool, denoise: Denoise, x: Tensor, calls: int
) -> Tensor:
    return solver(denoise, x, grid(count(calls) + 1)[:-1] if stops else grid(count(calls)))


def stochastic(kind: str, largest: float, smallest: float) -> dict[str, tuple[float, Callable[..., Tensor]]]:
    """Stochastic peer configurations as in `configurations`; they draw from torch's global generator."""
    first = 80.0 if math.isinf(largest) else largest
    made: dict[str, tuple[float, Callable[..., Tensor]]] = {}
    for label, grid in {"karras": karras, "exponential": exponential}.items():
        walk: Grid = partial(grid, first, smallest)
        for name in ("dpmpp_2m_sde", "dpmpp_3m_sde", "euler_ancestral"):
            solver = partial(k_diffusion, name, noise_sampler=_FreshNoise())
            made[f"k-diffusion {name}, {label}"] = first, partial(_on_grid, solver, walk, _same, False)
        made[f"diffusers 2M-SDE, {label}"] = (
            first,
            partial(
                _on_grid,
                partial(
                    diffusers_unit, "DPMSolverMultistepScheduler", solver_order=2, algorithm_type="sde-dpmsolver++"
                ),
                walk,
                _same,
                False,
            ),
        )
    if kind == "VP":
        made["diffusers DDPM, leading"] = first, partial(_ddpm, "leading")
        made["diffusers DDPM, trailing"] = first, partial(_ddpm, "trailing")
    return made


def _ddpm(spacing: str, denoise: Denoise, x: Tensor, calls: int) -> Tensor:
    return diffusers_table("DDPMScheduler", denoise, x, calls, spacing, clip_sample=False)


class _FreshNoise:
    """Independent noise for each step, of the shape of the last x: a Brownian tree has the same law and is slow."""

    like: Tensor

    def __call__(self, sigma: Tensor, following: Tensor) -> Tensor:
        return torch.randn_like(self.like)

"""Contrastive models: their loss against closed forms and over ranks, guidance by similarity, and metrics of texts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import gaussian
from runs import run, sampled
from torch import Tensor, nn

import inkdrop
from inkdrop.codecs import Standardize
from inkdrop.conditioners import Embedding
from inkdrop.conditioners.base import Conditioner
from inkdrop.files.texts import encoded
from inkdrop.guidance import EstimateSimilarity, NoisedSimilarity
from inkdrop.losses import ContrastiveLoss, Example
from inkdrop.metrics import TextRetrieval, TextSimilarity, Thumbnail
from inkdrop.metrics.metric import Extracted
from inkdrop.models import ContrastiveModel
from inkdrop.predictions import VPrediction
from inkdrop.randomness import Generators
from inkdrop.schedules import cosine
from inkdrop.time_samplers import Uniform

CLIP = ["experiment=clip", "logger=none", "data.num_scenes=64", "data.batch_size=16", "network.out_dim=8"]
CLIP += ["network.network.base_channels=8", "network.network.norm_groups=4", "conditioner.dim=8", "conditioner.depth=0"]
CLIP += [
    "trainer.max_steps=4",
    "conditioner.token_dim=8",
    "scheduler.warmup_steps=1",
    "trainer.log_every_n_steps=2",
    "trainer.val_check_interval=4",
]


class Vectors(Conditioner):
    """The numbers of a batch themselves."""

    names, dim = ("number",), 3

    def condition(self, batch: Any, dropped: Any) -> Any:
        return {"vector": batch["number"].float()}

    def request(self, seeds: Any, **condition: Any) -> dict[str, Tensor]:
        return {"number": torch.eye(3)[[seed % 3 for seed in seeds]]}

    @property
    def dropouts(self) -> dict[str, float]:
        return {}


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.layer(x.float())


def model() -> ContrastiveModel:
    torch.manual_seed(0)
    made = ContrastiveModel(Linear(), Vectors(), cosine(1000), VPrediction(), Standardize(), [2], 4)
    made.check()
    return made


def example(count: int) -> Example:
    generator = torch.Generator().manual_seed(1)
    number = torch.randn(count, 3, generator=generator)
    number[-1] = number[0]
    return Example(torch.randn(count, 2, generator=generator), {}, {"number": number})


def test_the_loss_is_two_cross_entropies_without_equal_texts() -> None:
    each, made = example(5), model()
    terms = ContrastiveLoss()(made, each, Generators.from_seeds(range(5)))
    a, b = made.data(each.x_0), made.texts(each.batch)
    assert torch.allclose(a.norm(dim=1), torch.ones(5))
    s = a @ b.T / 0.07
    s[0, 4] = s[4, 0] = -math.inf  # the same text
    expected = -(s.log_softmax(1).diagonal() + s.T.log_softmax(1).diagonal()) / 2
    assert torch.allclose(terms.loss, expected, atol=1e-4)
    assert torch.equal(terms.parts["accuracy"], (s.argmax(1) == torch.arange(5)).float())
    assert terms.t is not None
    assert terms.t.tolist() == [0] * 5
    noised = ContrastiveLoss(Uniform())(made, each, Generators.from_seeds(range(5)))
    assert noised.t is not None
    assert noised.t.unique().numel() == 5
    assert not torch.allclose(noised.loss, terms.loss)


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    made, each = model(), example(6)
    rows = slice(3 * rank, 3 * rank + 3)
    mine = Example(each.x_0[rows], {}, {"number": each.batch["number"][rows]})
    terms = ContrastiveLoss()(made, mine, Generators.from_seeds(range(3)))
    terms.loss.mean().backward()
    for parameter in made.parameters():
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= 2  # as the strategy ddp does
    torch.save(
        {"loss": terms.loss.detach(), "gradients": [each.grad for each in made.parameters()]}, f"{folder}/{rank}.pt"
    )
    torch.distributed.destroy_process_group()


def test_two_ranks_compare_all_their_items(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(_rank, (str(tmp_path),), 2, start_method="fork")
    made, each = model(), example(6)
    terms = ContrastiveLoss()(made, each, Generators.from_seeds(range(6)))
    terms.loss.mean().backward()
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.allclose(torch.cat([rank["loss"] for rank in ranks]), terms.loss, atol=1e-5)
    for rank in ranks:
        for gradient, parameter in zip(rank["gradients"], made.parameters(), strict=True):
            assert parameter.grad is not None
            assert torch.allclose(gradient, parameter.grad, atol=1e-5)


class _Pipeline:
    """What guidance knows of a pipeline whose exact denoiser is that of a normal law."""

    def __init__(self, codec: Any):
        from inkdrop.samplers import DDIM
        from inkdrop.time_grids import Linspace

        self.codec, self.shape, self.device, self.range = codec, (2,), torch.device("cpu"), None
        self.conditioner, self.sampler = Vectors(), DDIM(Linspace(4))


@pytest.mark.parametrize("kind", [NoisedSimilarity, EstimateSimilarity])
def test_guidance_adds_the_gradient_of_the_similarity(kind: type) -> None:
    made = model().requires_grad_(False)
    denoiser: Any = gaussian(cosine(1000), torch.zeros(2), torch.eye(2) * 0.5)
    pipeline = _Pipeline(made.codec)
    batch = made.request(range(3))
    now = denoiser.schedule.points([0.5])[0]
    guided = kind(made, scale=2.0, interval=[0.1, 5.0])(denoiser, pipeline, batch)
    x_t = torch.randn(3, 2)
    found = guided(x_t, now, {}).x_0
    x = x_t.clone().requires_grad_()
    seen = made.data(x, now) if kind is NoisedSimilarity else made.data(denoiser(x, now, {}).x_0)
    (slope,) = torch.autograd.grad((made.texts(batch) * seen).sum() / 0.07, x)
    expected = denoiser(x_t, now, {}).x_0 + 2.0 * float(now.sigma) ** 2 / float(now.alpha) * slope
    assert torch.allclose(found, expected, atol=1e-4)
    guided.select(torch.tensor([2, 0, 1]))
    assert torch.allclose(guided(x_t[[2, 0, 1]], now, {}).x_0, found[[2, 0, 1]], atol=1e-5)
    assert kind(made, scale=None)(denoiser, pipeline, batch) is denoiser
    with pytest.raises(ValueError, match=r"needs condition\.number"):
        kind(made)(denoiser, pipeline, {})
    with pytest.raises(ValueError, match="is not a contrastive model"):
        kind(nn.Linear(2, 2))


def test_a_model_of_other_data_does_not_guide() -> None:
    made, denoiser = model(), gaussian(cosine(1000), torch.zeros(2), torch.eye(2) * 0.5)
    pipeline: Any = _Pipeline(made.codec)
    pipeline.shape = (3,)
    with pytest.raises(ValueError, match="choose guidance=clip_similarity_of_estimate"):
        NoisedSimilarity(made, interval=[0.1, 5.0])(denoiser, pipeline, made.request([0]))
    with pytest.raises(ValueError, match=r"knows data of x \[2\], not \[3\]"):
        EstimateSimilarity(made, interval=[0.1, 5.0])(denoiser, pipeline, made.request([0]))
    conditioner = Vectors()
    conditioner.dim = 0  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"set conditioner\.dim"):
        ContrastiveModel(Linear(), conditioner, cosine(1000), VPrediction(), Standardize(), [2], 4)


class _Encoder:
    """Vectors of texts that are known, in place of an extractor."""

    name, dim = "known", 2

    def names(self) -> list[str]:
        return ["caption"]

    def texts(self, batch: Any) -> Tensor:
        vectors = {"a": [1.0, 0], "b": [0, 1.0], "c": [-1.0, 0]}
        return torch.tensor([vectors[chr(row[0])] for row in batch["caption"]])


def test_metrics_of_texts_count_the_nearest_and_average_the_cosine() -> None:
    features = nn.functional.normalize(torch.tensor([[1.0, 0.1], [0.2, 1.0], [0.5, 0.4], [-1.0, 0.0]]))
    items = {"caption": encoded(["a", "b", "b", "c"]), "x": torch.zeros(4, 1)}
    samples = Extracted(4, items, features=features)
    encoder: Any = _Encoder()
    found = {
        **TextRetrieval()(samples, samples, samples, encoder),
        **TextSimilarity()(samples, samples, samples, encoder),
    }
    cosines = [features[0, 0], features[1, 1], features[2, 1], 1.0]
    assert found["retrieval_known"] == 0.75
    assert found["clip_score_known"] == pytest.approx(100 * float(sum(cosines)) / 4, abs=1e-4)
    with pytest.raises(ValueError, match="has no vectors of texts: set extractor=contrastive"):
        TextRetrieval().check({"x": torch.zeros(2, 1)}, {"x": torch.zeros(2, 1)}, Thumbnail(3))


@pytest.mark.slow
def test_a_clip_of_scenes_is_trained_measures_and_guides(tmp_path: Path) -> None:
    run(tmp_path / "clip", model=CLIP)
    assert '"validation/accuracy"' in (tmp_path / "clip/metrics.jsonl").read_text()
    plain = ["data=scenes", "schedule=cosine", "prediction=v", "conditioner=none", "guidance=none", "logger=none"]
    plain += ["data.num_scenes=64", "trainer.log_every_n_steps=1"]
    plain += ["network.base_channels=8", "data.batch_size=16", "trainer.max_steps=2", "callbacks.pictures=null"]
    plain += ["extractor=contrastive", f"extractor.checkpoint={tmp_path / 'clip'}", "metric=[clip_score,retrieval]"]
    run(tmp_path / "plain", "scheduler.warmup_steps=1", "evaluation.num_samples=20", model=plain)
    metrics = (tmp_path / "plain/metrics.jsonl").read_text()
    assert '"retrieval_contrastive_20"' in metrics
    assert '"clip_score_contrastive_20_floor"' in metrics
    for guidance in ("clip_similarity", "clip_similarity_of_estimate"):
        chosen = [f"guidance={guidance}", f"guidance.clip_similarity.model.checkpoint={tmp_path / 'clip'}"]
        chosen += ["guidance.scale=0.1", "guidance.interval=[0,100]", "time_grid.num_steps=3"]
        arrays, _ = sampled(
            tmp_path / "plain", tmp_path / guidance, *chosen, "num_samples=2", "condition.caption=a red circle"
        )
        assert arrays["caption"].tolist() == ["a red circle"] * 2
    options = ["num_samples=20", "evaluate=true", f"guidance.clip_similarity.model.checkpoint={tmp_path / 'clip'}"]
    options += ["guidance=clip_similarity", "guidance.interval=[0,100]", "time_grid.num_steps=2"]
    _, result = sampled(tmp_path / "plain", tmp_path / "measured", *options)
    assert 0 <= result["metrics"]["retrieval_contrastive_20"] <= 1


@pytest.mark.slow
def test_unclip_draws_vectors_of_captions_and_images_of_vectors(tmp_path: Path) -> None:
    run(tmp_path / "clip", model=CLIP)
    short = [
        "logger=none",
        "data.num_scenes=64",
        "data.batch_size=16",
        "trainer.max_steps=2",
        "scheduler.warmup_steps=1",
    ]
    prior = ["experiment=unclip_prior", "network.width=16", "network.num_blocks=1", "conditioner.dim=8"]
    run(tmp_path / "prior", model=[*prior, *short, f"codec.model.checkpoint={tmp_path / 'clip'}"])
    decoder = ["experiment=unclip_decoder", "network.base_channels=8", "callbacks.pictures=null"]
    decoder += ["evaluation.num_samples=20", "time_grid.num_steps=2"]
    run(tmp_path / "decoder", model=[*decoder, *short, f"conditioner.model.checkpoint={tmp_path / 'clip'}"])
    assert '"scene_all_20"' in (tmp_path / "decoder/metrics.jsonl").read_text()
    (tmp_path / "clip").rename(tmp_path / "gone")
    vectors, _ = sampled(tmp_path / "prior", tmp_path / "vectors", "num_samples=3", "condition.caption=a red circle")
    assert vectors["x"].shape == (3, 8)
    assert torch.allclose(torch.from_numpy(vectors["x"]).norm(dim=1), torch.ones(3), atol=1e-5)
    chain = f"cascade=[{{checkpoint: {tmp_path / 'decoder'}, time_grid: {{num_steps: 2}}}}]"
    images, _ = sampled(
        tmp_path / "prior", tmp_path / "images", "num_samples=3", "condition.caption=a red circle", chain
    )
    assert images["x"].shape == (3, 16, 16, 3)
    pipeline = inkdrop.load(tmp_path / "decoder")
    seen = pipeline.conditioner({"x": torch.from_numpy(vectors["x"])})["vector"]
    expected = pipeline.conditioner.map(torch.from_numpy(vectors["x"]) * 8**0.5)
    assert torch.allclose(seen, expected, atol=1e-5)
    from PIL import Image

    Image.fromarray(images["x"][0]).save(tmp_path / "x.png")
    again, _ = sampled(
        tmp_path / "decoder", tmp_path / "variations", "num_samples=2", f"condition.x={tmp_path / 'x.png'}"
    )
    assert again["inputs"].shape == again["x"].shape == (2, 16, 16, 3)
    given = torch.from_numpy(again["inputs"]).movedim(-1, 1)
    held: Any = pipeline.conditioner.model.model
    one, other = pipeline.conditioner({"x": given}), pipeline.conditioner({"x": held.encoded({"x": given})})
    assert torch.allclose(one["vector"], other["vector"], atol=1e-5)
    with pytest.raises(ValueError, match="vectors of a contrastive model have no decoder to data"):
        inkdrop.load(tmp_path / "prior").codec.reconstruct(torch.zeros(1, 8))
    with pytest.raises(ValueError, match="which has no vectors: choose a run of task=contrastive"):
        Embedding(pipeline)

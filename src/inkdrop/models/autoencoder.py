"""The autoencoder, which is a generative model where its codes have a prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.codecs import Codec
from inkdrop.files.pictures import read_in_turn
from inkdrop.models.base import Model
from inkdrop.models.observations import Observation
from inkdrop.noises import Noise
from inkdrop.pictures import Automatic, View
from inkdrop.randomness import Generators, sent


class Autoencoder(Model):
    """An encoder, a bottleneck and a decoder: `z = bottleneck(encoder(x))`, and `decoder(z)` determines p(x | z).

    With a prior of its codes it is a generative model, a VAE: its samples are decoded from the noise of their seeds.
    Without one, its samples are the reconstructions of data: those of a file, `condition.x=FILE`, or of held-out items.

    - `network`: the encoder, the decoder and the bottleneck.
    - `observation`: the law p(x | z).
    - `codec`: encodes the raw data to x.
    - `shape`: the shape of x without the batch.
    - `prior`: the law of codes.
    - `view`: how data are looked at and written.
    """

    draws = True
    estimate = "z = bottleneck(encoder(x)), and decoder(z) determines p(x | z)"

    def __init__(
        self,
        network: Any,
        observation: Observation,
        codec: Codec,
        shape: list[int],
        prior: Noise | None = None,
        view: View | None = None,
    ):
        super().__init__()
        if not hasattr(network, "bottleneck"):
            raise ValueError(
                f"network is a {type(network).__name__}, which has no encoder and decoder: "
                "choose network=autoencoder, or network=perceptron_autoencoder for points"
            )
        self.encoder, self.network, self.bottleneck = network.encoder, network.decoder, network.bottleneck
        self.observation, self.codec, self.shape = observation, codec, tuple(shape)
        self.prior, self.view = prior, view or Automatic()
        self.latent_shape: tuple[int, ...] = network.decoder.latent_shape

    @property
    def names(self) -> list[str]:
        return [] if self.prior is not None else ["x"]

    def encoded(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the output of the encoder (B, *) for a raw batch, from which `code` and `codes` make codes."""
        encoded: Tensor = self.encoder(self.codec.encode(batch))
        return encoded

    def code(self, encoded: Tensor, generators: Generators | None = None) -> Any:
        """Returns the code of the output of the encoder (B, *); it is random only if generators are given."""
        eps = None
        if generators is not None and self.bottleneck.draws:
            eps = sent(generators.normal(self.latent_shape), encoded.device)
        return self.bottleneck(encoded, eps)

    def output(self, z: Tensor) -> Tensor:
        """Returns the mean of x (B, *) given codes z (B, *)."""
        return self.observation.mean(self.network(self.bottleneck.settled(z)))

    def codes(self, encoded: Tensor, generators: Generators | None = None) -> Tensor:
        """Returns the codes alone (B, *); see `code`."""
        z: Tensor = self.code(encoded, generators).z
        return z

    def decoded(self, z: Tensor) -> Tensor:
        """Returns raw data (B, *) of codes z (B, *)."""
        return self.codec.decode(self.output(z))

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the raw data that samples reconstruct, or nothing where the model has a prior."""
        if unknown := sorted(set(condition) - set(self.names)):
            takes = "takes condition.x" if self.names else "takes no condition"
            raise ValueError(f"condition.{unknown[0]} has no effect: this model {takes}")
        if self.prior is not None:
            return {}
        files = condition.get("x")
        if files is None:
            raise ValueError("condition.x=FILE is needed, the data to reconstruct, or evaluate=true for held-out items")
        data = read_in_turn(files, "condition.x", seeds, len(self.shape))
        self.check_batch({"x": data[:1]})
        return {"x": data}

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Raises `ValueError` if data to reconstruct do not have the shape of the model."""
        if self.prior is not None:
            return
        x = self.codec.encode({"x": batch["x"][:1].to(self.device)})
        if tuple(x.shape[1:]) != self.shape:
            shapes = f"x of {list(x.shape[1:])}, but this model was trained on x of {list(self.shape)}"
            raise ValueError(f"the data to reconstruct become {shapes}: give data of the shape of the training data")

    def example(self, count: int) -> dict[str, Tensor]:
        return {} if self.prior is not None else {"x": self.codec.decode(torch.zeros(count, *self.shape))}

    @torch.no_grad()
    def check(self) -> None:
        """Raises `ValueError` if encoder, bottleneck and decoder do not fit each other."""
        x = torch.zeros(1, *self.shape, device=self.device)
        training = self.training
        self.eval()  # a codebook learns nothing from zeros
        try:
            z = self.code(self.encoder(x)).z
            output = self.network(z)
        except RuntimeError as error:  # torch's error for shapes that do not fit
            raise ValueError(f"the network does not fit data.shape={list(self.shape)}: {error}") from None
        finally:
            self.train(training)
        if output.shape != x.shape:
            raise ValueError(f"the decoder returns {list(output.shape[1:])}, but x is {list(self.shape)}")

    def forward(
        self,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        progress: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """Draws raw data (B, *) of these seeds, or reconstructs those of the batch where the model has no prior."""

        def make() -> Tensor:
            if self.prior is not None:
                z = self.prior(self.latent_shape, Generators.from_seeds(seeds).at("start")).to(self.device)
            else:
                z = self.codes(self.encoded({name: value.to(self.device) for name, value in batch.items()}))
            return self.output(z)

        return self.in_one_call(make, batch, seeds, progress)

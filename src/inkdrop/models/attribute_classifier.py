"""The classifier of the attributes of noised texts.

B batch, F attributes, K values of all attributes, W bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.codecs import Batches, Codec
from inkdrop.files.showing import harmless
from inkdrop.files.texts import decoded, encoded, is_text, requested
from inkdrop.models.classifier import OfNoised
from inkdrop.noises import Noise
from inkdrop.predictions import Prediction
from inkdrop.schedules import Schedule

_BYTES = 128  # of the row of a value
_ABSENT = ""  # the value of an attribute that a text does not have
UNKNOWN = -1  # the number of a value that training never had


def attributes_of(text: str) -> dict[str, str]:
    """Returns the values of a text such as `name : The Eagle | food : Chinese` by their attributes in lower case."""
    parts = (part.partition(":") for part in text.split("|"))
    return {name.strip().lower().replace(" ", "_"): value.strip() for name, _, value in parts if name.strip()}


class AttributeClassifier(OfNoised):
    """A classifier of texts with noised vectors: logits (B, K) of the values of all attributes.

    The attributes of a text are the field `attributes`, such as `name : The Eagle | food : Chinese`. p(value | x_t) is
    a softmax over the values of one attribute, of which one says that the text does not have it.

    - `num_values`: the largest number K of values of all attributes.
    - The other arguments are those of its base class.

    Raises `ValueError` for data without attributes, or with more values. Source: Li et al. 2022, arXiv 2205.14217,
    section 5, with a classifier in place of a language model.
    """

    guides = "attribute"
    rows: Tensor

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        codec: Codec,
        shape: list[int],
        num_values: Annotated[int, Ge(2)],
        noise: Noise | None = None,
    ):
        super().__init__(network, schedule, prediction, codec, shape, num_values, noise)
        self.register_buffer("rows", torch.zeros(num_values, _BYTES, dtype=torch.uint8))
        self.values: dict[str, dict[str, int]] = {}  # numbers of the values of each attribute
        self.register_load_state_dict_post_hook(lambda module, _: module._count())

    def _count(self) -> None:
        """Numbers the values of the table."""
        self.values = {}
        for number, row in enumerate(decoded(self.rows)):
            if row:
                ((name, value),) = attributes_of(row).items()
                self.values.setdefault(name, {})[value] = number

    def fit(self, batches: Batches, device: torch.device) -> None:
        super().fit(batches, device)
        counts: dict[str, Counter[str]] = {}
        for batch in batches(4096, ["attributes"]):
            for text in self._texts(batch):
                for name, value in attributes_of(text).items():
                    counts.setdefault(name, Counter())[value] += 1
        each = [(name, sorted(values, key=lambda v: (-values[v], v))) for name, values in sorted(counts.items())]
        rows = [f"{name} : {value}" for name, values in each for value in (_ABSENT, *values)]
        if not rows or len(rows) > len(self.rows):
            raise ValueError(
                f"the texts have {len(rows)} values of attributes, with one for each that is absent, but "
                f"pipeline.num_values={len(self.rows)}: set it to {max(len(rows), 2)} or more"
            )
        self.rows.zero_()
        table = encoded(rows, "attributes")[:, :_BYTES]
        self.rows[: len(table), : table.shape[1]] = table.to(self.rows)
        self._count()

    @staticmethod
    def _texts(batch: Mapping[str, Tensor]) -> list[str]:
        if "attributes" not in batch or not is_text(batch["attributes"]):
            raise ValueError(
                "the data have no text `attributes`, such as `name : The Eagle | food : Chinese`, which this "
                "classifier reads: choose data=e2e"
            )
        return decoded(batch["attributes"])

    def numbers(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the number of the value of each attribute (B, F) of a raw batch, or `UNKNOWN`."""
        each = [attributes_of(text) for text in self._texts(batch)]
        rows = [[known.get(text.get(name, _ABSENT), UNKNOWN) for name, known in self.values.items()] for text in each]
        return torch.tensor(rows, device=self.rows.device)

    def asked(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the same for a request, where attributes that the text does not name are `UNKNOWN`: any will do."""
        absent = torch.tensor([known[_ABSENT] for known in self.values.values()], device=self.rows.device)
        numbers = self.numbers(batch)
        return numbers.where(numbers != absent, UNKNOWN)

    def log_probabilities(self, logits: Tensor, numbers: Tensor) -> Tensor:
        """Returns log p(value | x_t) (B, F) of these values (B, F), and 0 for those that are `UNKNOWN`."""
        columns = []
        for number, known in zip(numbers.unbind(1), self.values.values(), strict=True):
            first = min(known.values())
            logs = logits[:, first : first + len(known)].log_softmax(1)
            chosen = logs.gather(1, (number - first).clamp(min=0)[:, None])[:, 0]
            columns.append(torch.where(number == UNKNOWN, torch.zeros_like(chosen), chosen))
        return torch.stack(columns, 1)

    def judged(self, logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        numbers = self.numbers(batch)
        most = [
            min(known.values()) + logits[:, min(known.values()) :][:, : len(known)].argmax(1)
            for known in self.values.values()
        ]
        right = (torch.stack(most, 1) == numbers).to(logits.dtype)
        known = (numbers != UNKNOWN).sum(1).clamp(min=1)
        return -self.log_probabilities(logits, numbers).sum(1) / known, right.sum(1) / known

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the attributes of samples with these seeds, as texts.

        A condition is a value of the attribute of its name, or a list that samples take in turn; `attributes` is a
        whole text. Raises `ValueError` for a value that training never had, with those that it had.
        """
        chosen: dict[str, list[Any]] = {
            name: value if isinstance(value, list) else [value] for name, value in condition.items()
        }
        whole = chosen.pop("attributes", None)
        texts = [""] * len(seeds) if whole is None else decoded(requested(whole, "attributes", seeds))
        added = [" | ".join(f"{n} : {self._value(n, v[seed % len(v)])}" for n, v in chosen.items()) for seed in seeds]
        each = [" | ".join(filter(None, pair)) for pair in zip(texts, added, strict=True)]
        for text in dict.fromkeys(each):
            for name, value in attributes_of(text).items():
                self._value(name, value)
        return {"attributes": encoded(each, "condition.attributes")}

    def _value(self, name: str, wanted: Any) -> str:
        """Returns a value as training had it."""
        if name not in self.values:
            raise ValueError(f"condition.{harmless(name)} is unknown: the attributes are {', '.join(self.values)}")
        known = {value.lower(): value for value in self.values[name] if value != _ABSENT}
        plain = str(wanted)
        if plain.lower() not in known:
            raise ValueError(
                f"condition.{name}={harmless(plain, 60)} is not a value of the training texts: these are "
                f"{', '.join(_listed(known.values()))}"
            )
        return known[plain.lower()]


def _listed(values: Iterable[str]) -> list[str]:
    return [harmless(value, 60) for value in values]

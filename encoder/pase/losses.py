"""What PASE learns from: phones, audio-visual contrast, and prediction of what is hidden."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.audio import mel_filters
from talkhead.encoder.pase.corpus import LABELS_PER_FRAME, UNKNOWN
from talkhead.encoder.pase.model import N_FFT, Aligned
from talkhead.encoder.phones import PHONES, SILENCE, VISEME_OF, VISEMES
from talkhead.types import SAMPLE_RATE

SILENT = PHONES.index(SILENCE)
N_MELS = 40
MEL_FLOOR = 1e-5


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts; 0 leaves it out (the ablations of docs/pase.md)."""

    phones: float = 1.0
    visemes: float = 0.3
    contrast: float = 0.3
    reconstruction: float = 1.0
    clearing: float = 0.5


def phone_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of phone logits [B, T, P] against labels [B, T], unknown ones left out."""
    known = labels != UNKNOWN
    if not bool(known.any()):
        return logits.sum() * 0.0
    return F.cross_entropy(logits[known], labels[known], label_smoothing=0.05)


def viseme_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of visemes, each as likely as its phones together: what lips can tell.

    logits: [B, T, P] of phones. labels: [B, T] phones or UNKNOWN.
    """
    known = labels != UNKNOWN
    if not bool(known.any()):
        return logits.sum() * 0.0
    classes = viseme_classes().to(logits.device)
    member = F.one_hot(classes, len(VISEMES)).to(logits)
    shares = logits[known].softmax(-1) @ member
    return F.nll_loss(torch.log(shares + 1e-6), classes[labels[known].long()])


def denoising_loss(cleared: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error [B, T, width] of inputs cleared of noise, over how much clean ones vary."""
    spread = clean.flatten(0, 1).std(0).mean().clamp(min=1e-3)
    return (cleared - clean).abs().mean() / spread


def viseme_classes() -> Tensor:
    """The viseme of each phone, [P] indices into VISEMES."""
    order = list(VISEMES)
    return torch.tensor([order.index(VISEME_OF[phone]) for phone in PHONES])


class Contrast(nn.Module):
    """Audio-visual contrast: of phones, whose frames meet whoever says them, and of moments.

    Features of either side are mapped to unit vectors in one space; similarities over a learned
    temperature are held against who belongs together (supervised contrast: Khosla et al. 2020,
    equation 2; moments: van den Oord et al. 2018, equation 4), in both directions.
    """

    def __init__(self, dim: int, n_embedding: int = 64) -> None:
        super().__init__()
        self.heard = nn.Linear(dim, n_embedding)
        self.seen = nn.Linear(dim, n_embedding)
        self.sharpness = nn.Parameter(torch.tensor(2.3))

    def embeddings(self, heard: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [B, F, E] of features a frame, both [B, F, dim]."""
        return F.normalize(self.heard(heard), dim=-1), F.normalize(self.seen(seen), dim=-1)

    def forward(self, heard: Tensor, seen: Tensor, labels: Tensor) -> Tensor:
        """Loss of features [B, F, dim] of both sides; labels: [B, F] phones or UNKNOWN."""
        a, v = self.embeddings(heard, seen)
        sharp = self.sharpness.exp().clamp(max=50.0)
        moment = _moments(torch.einsum("bfe,bge->bfg", a, v) * sharp, labels != SILENT)
        phones, a_phone = phone_means(a, labels)
        _, v_phone = phone_means(v, labels)
        if len(phones) < 2:
            return 0.5 * moment
        alike = (phones[:, None] == phones[None]).to(a)
        alike = alike / alike.sum(1, keepdim=True)
        scores = F.normalize(a_phone, dim=-1) @ F.normalize(v_phone, dim=-1).T * sharp
        phone = F.cross_entropy(scores, alike) + F.cross_entropy(scores.T, alike)
        return 0.5 * (moment + phone)


def _moments(scores: Tensor, spoken: Tensor) -> Tensor:
    """How badly each spoken moment [B, F] finds itself on the other side, by scores [B, F, F].

    In silence no moment can be told from the next; silent ones are only what others must not find.
    """
    if not bool(spoken.any()):
        return scores.sum() * 0.0
    places = torch.arange(scores.shape[1], device=scores.device)
    target = places.expand(scores.shape[:2])[spoken]
    back = scores.transpose(1, 2)[spoken]
    return F.cross_entropy(scores[spoken], target) + F.cross_entropy(back, target)


def phone_means(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each spoken phone, [N], and the mean of its frames' values, [N, E].

    values: [B, F, E]. labels: [B, F]; runs of one label are one phone, UNKNOWN is none.
    """
    changes = torch.ones_like(labels, dtype=torch.bool)
    changes[:, 1:] = labels[:, 1:] != labels[:, :-1]
    number = changes.flatten().cumsum(0) - 1
    n = int(number[-1]) + 1
    flat = values.flatten(0, 1)
    sums = flat.new_zeros(n, values.shape[-1]).index_add(0, number, flat)
    counts = flat.new_zeros(n).index_add(0, number, torch.ones_like(flat[:, 0]))
    phones = labels.flatten()[changes.flatten()]
    known = phones != UNKNOWN
    return phones[known], (sums / counts[:, None])[known]


class Restorer(nn.Module):
    """Predicts clean sound and lips from features of which spans or a whole side are hidden.

    It sees both ways in time; it is left behind after training.
    """

    def __init__(self, dim: int, n_points: int, hidden: int = 96) -> None:
        super().__init__()
        self.absent = nn.Parameter(torch.zeros(2, dim))
        self.heard = nn.Linear(LABELS_PER_FRAME * dim, dim)
        self.gru = nn.GRU(2 * dim, hidden, batch_first=True, bidirectional=True)
        self.mel = nn.Linear(2 * hidden, LABELS_PER_FRAME * N_MELS)
        self.mouth = nn.Linear(2 * hidden, 2 * n_points) if n_points else None
        self.mouth_heard = nn.Linear(dim, 2 * n_points) if n_points else None

    def forward(
        self, heard: Tensor, seen: Tensor | None, hides: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Log-mel energies [B, F * 2, N_MELS] and mouth points [B, F, 2 P] (None without points).

        heard: [B, F * 2, dim]. seen: [B, F, dim] or None. hides: of sound and of lips, [B, F] bool.
        """
        n, n_vectors, _ = heard.shape
        sound = self.heard(heard.reshape(n, n_vectors // LABELS_PER_FRAME, -1))
        sound = torch.where(hides[0][..., None], self.absent[0], sound)
        lips = self.absent[1].expand_as(sound)
        if seen is not None:
            lips = torch.where(hides[1][..., None], lips, seen)
        hidden, _ = self.gru(torch.cat([sound, lips], -1))
        mel = self.mel(hidden).reshape(n, n_vectors, N_MELS)
        return mel, None if self.mouth is None else self.mouth(hidden)

    def lips_of(self, heard: Tensor) -> Tensor | None:
        """Mouth points [B, F, 2 P] from the features of one frame's sound alone, [B, F, dim]."""
        return None if self.mouth_heard is None else self.mouth_heard(heard)


def clean_mel(spectra: Tensor) -> Tensor:
    """Log-mel energies [..., N_MELS] of log powers [..., N_BINS], about 0 in mean, 1 in spread."""
    filters = torch.from_numpy(mel_filters(SAMPLE_RATE, N_FFT, N_MELS).copy()).to(spectra.device)
    filters = filters / filters.sum(1, keepdim=True)
    return (torch.log(spectra.exp() @ filters.T + MEL_FLOOR) + 5.0) / 4.0


def frame_features(aligned: Aligned) -> Tensor:
    """A video frame's audio features [B, F, dim]: the mean of its vectors."""
    features = aligned.features
    return features.unflatten(1, (-1, LABELS_PER_FRAME)).mean(2)

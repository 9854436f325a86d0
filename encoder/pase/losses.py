"""Training losses of PASE: phones, audio-visual contrast, and reconstruction of masked audio and lips."""

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
    """Weights of the losses; 0 disables one (see the ablation in docs/experiments/pase.md).

    Attributes:
        phones: Weight of `phone_loss`.
        visemes: Weight of `viseme_loss`.
        contrast: Weight of `Contrast`.
        reconstruction: Weight of the errors of `Restorer`.
        clearing: Weight of `denoising_loss`.
    """

    phones: float = 1.0
    visemes: float = 0.3
    contrast: float = 0.3
    reconstruction: float = 1.0
    clearing: float = 0.5
    distillation: float = 1.0


def phone_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of phones, with label smoothing.

    Args:
        logits: Logits of the phones, [B, T, P].
        labels: Indices into PHONES or UNKNOWN, [B, T]. Unknown ones are ignored.

    Returns:
        A scalar; 0 without known labels.
    """
    known = labels != UNKNOWN
    if not bool(known.any()):
        return logits.sum() * 0.0
    return F.cross_entropy(logits[known], labels[known], label_smoothing=0.05)


def viseme_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of visemes, whose probabilities are the sums over their phones.

    Args:
        logits: Logits of the phones, [B, T, P].
        labels: Indices into PHONES or UNKNOWN, [B, T]. Unknown ones are ignored.

    Returns:
        A scalar; 0 without known labels.
    """
    known = labels != UNKNOWN
    if not bool(known.any()):
        return logits.sum() * 0.0
    classes = viseme_classes().to(logits.device)
    member = F.one_hot(classes, len(VISEMES)).to(logits)
    probabilities = logits[known].softmax(-1) @ member  # [N, number of visemes]
    return F.nll_loss(torch.log(probabilities + 1e-6), classes[labels[known].long()])


def denoising_loss(denoised: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error of denoised inputs, relative to the spread of clean ones.

    Args:
        denoised: Inputs of noisy audio after denoising, [B, T, width].
        clean: Inputs of the same audio without noise, [B, T, width].

    Returns:
        A scalar.
    """
    spread = clean.flatten(0, 1).std(0).mean().clamp(min=1e-3)
    return (denoised - clean).abs().mean() / spread


def distillation_loss(hidden: Tensor, whole: Tensor) -> Tensor:
    """Mean squared error of the trunk's vectors, each value relative to its variance.

    A few of Whisper's values vary far more than the others, but encode little more than the position.

    Args:
        hidden: Vectors of noisy audio with bounded attention, [B, T, WIDTH].
        whole: Whisper's own vectors of clean audio, [B, T, WIDTH].

    Returns:
        A scalar; 1 for vectors that are always the mean.
    """
    variance = whole.flatten(0, 1).var(0)
    return ((hidden - whole).square() / (variance + 1e-6)).mean()


def viseme_classes() -> Tensor:
    """List the viseme of each phone.

    Returns:
        Indices into VISEMES, [P].
    """
    order = list(VISEMES)
    return torch.tensor([order.index(VISEME_OF[phone]) for phone in PHONES])


class Contrast(nn.Module):
    """Audio-visual contrastive loss over phones and over moments.

    Features of both modalities are mapped to unit vectors in one space. Their similarities, times a
    learned sharpness, must identify matching vectors, in both directions: for phones, all frames
    of the same phone by any speaker (supervised contrast: Khosla et al. 2020, equation 2);
    for moments, the same moment (van den Oord et al. 2018, equation 4).

    Attributes:
        sharpness: Logarithm of the factor on similarities.
    """

    def __init__(self, dim: int, n_embedding: int = 64) -> None:
        """Build the layers, with random weights.

        Args:
            dim: Values in a feature vector.
            n_embedding: Values in a unit vector.
        """
        super().__init__()
        self.heard = nn.Linear(dim, n_embedding)
        self.seen = nn.Linear(dim, n_embedding)
        self.sharpness = nn.Parameter(torch.tensor(2.3))

    def embeddings(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Map both modalities to the common space.

        Args:
            audio: Features per video frame, [B, F, dim].
            visual: Features per video frame, [B, F, dim].

        Returns:
            Unit vectors of both, [B, F, E].
        """
        return F.normalize(self.heard(audio), dim=-1), F.normalize(self.seen(visual), dim=-1)

    def forward(self, audio: Tensor, visual: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            audio: Features per video frame, [B, F, dim].
            visual: Features per video frame, [B, F, dim].
            labels: Phones of the frames, indices into PHONES or UNKNOWN, [B, F].

        Returns:
            A scalar.
        """
        a, v = self.embeddings(audio, visual)
        sharp = self.sharpness.exp().clamp(max=50.0)
        # Moments: each frame against all frames of its own stretch.
        moment = _moments(torch.einsum("bfe,bge->bfg", a, v) * sharp, labels != SILENT)
        # Phones: each phone of the batch against all of them.
        phones, a_phone = phone_means(a, labels)
        _, v_phone = phone_means(v, labels)
        if len(phones) < 2:
            return 0.5 * moment
        same = (phones[:, None] == phones[None]).to(a)
        same = same / same.sum(1, keepdim=True)
        scores = F.normalize(a_phone, dim=-1) @ F.normalize(v_phone, dim=-1).T * sharp  # [N, N]
        phone = F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)
        return 0.5 * (moment + phone)


def _moments(scores: Tensor, spoken: Tensor) -> Tensor:
    """Cross-entropy of finding each spoken moment [B, F] in the other modality, by scores [B, F, F].

    Moments of silence all look the same: they are candidates, but no loss is computed for them.
    """
    if not bool(spoken.any()):
        return scores.sum() * 0.0
    places = torch.arange(scores.shape[1], device=scores.device)
    target = places.expand(scores.shape[:2])[spoken]
    back = scores.transpose(1, 2)[spoken]
    return F.cross_entropy(scores[spoken], target) + F.cross_entropy(back, target)


def phone_means(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Average values over each phone.

    Args:
        values: [B, F, E].
        labels: Indices into PHONES or UNKNOWN, [B, F]. A run of equal labels is one phone, except
            UNKNOWN.

    Returns:
        The label of each phone, [N], and the mean of its frames' values, [N, E].
    """
    # Number the runs of equal labels through the batch.
    changes = torch.ones_like(labels, dtype=torch.bool)
    changes[:, 1:] = labels[:, 1:] != labels[:, :-1]
    number = changes.flatten().cumsum(0) - 1  # [B * F]
    n = int(number[-1]) + 1
    # Average over each run, and drop those whose phone is unknown.
    flat = values.flatten(0, 1)
    sums = flat.new_zeros(n, values.shape[-1]).index_add(0, number, flat)
    counts = flat.new_zeros(n).index_add(0, number, torch.ones_like(flat[:, 0]))
    phones = labels.flatten()[changes.flatten()]
    known = phones != UNKNOWN
    return phones[known], (sums / counts[:, None])[known]


class Restorer(nn.Module):
    """Predicts clean audio and lips from features with masked spans or a missing modality.

    It is bidirectional in time and only used in training.

    Attributes:
        absent: Replaces masked audio and lips, [2, dim].
        gru: Bidirectional GRU over both.
        mel: Predicts log-mel energies.
        mouth: Predicts mouth points; None without points.
    """

    def __init__(self, dim: int, n_points: int, hidden: int = 96) -> None:
        """Build the layers, with random weights.

        Args:
            dim: Values in a feature vector.
            n_points: Points of a mouth; 0 for a corpus without video.
            hidden: Size of the GRU's state, in each direction.
        """
        super().__init__()
        self.absent = nn.Parameter(torch.zeros(2, dim))
        self.heard = nn.Linear(LABELS_PER_FRAME * dim, dim)
        self.gru = nn.GRU(2 * dim, hidden, batch_first=True, bidirectional=True)
        self.mel = nn.Linear(2 * hidden, LABELS_PER_FRAME * N_MELS)
        self.mouth = nn.Linear(2 * hidden, 2 * n_points) if n_points else None
        self.mouth_heard = nn.Linear(dim, 2 * n_points) if n_points else None

    def forward(
        self, audio: Tensor, visual: Tensor | None, masks: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Predict what is masked.

        Args:
            audio: Audio features, [B, F * 2, dim].
            visual: Visual features, [B, F, dim], or None.
            masks: Masked frames of audio and of lips, [B, F] bool each.

        Returns:
            Log-mel energies [B, F * 2, N_MELS], and mouth points [B, F, 2 P] or None without
            points.
        """
        n, n_vectors, _ = audio.shape
        sound = self.heard(audio.reshape(n, n_vectors // LABELS_PER_FRAME, -1))  # [B, F, dim]
        sound = torch.where(masks[0][..., None], self.absent[0], sound)
        lips = self.absent[1].expand_as(sound)
        if visual is not None:
            lips = torch.where(masks[1][..., None], lips, visual)
        hidden, _ = self.gru(torch.cat([sound, lips], -1))  # [B, F, 2 * hidden]
        mel = self.mel(hidden).reshape(n, n_vectors, N_MELS)
        return mel, None if self.mouth is None else self.mouth(hidden)

    def mouth_of_audio(self, audio: Tensor) -> Tensor | None:
        """Predict mouth points from the audio of one frame alone.

        Args:
            audio: Audio features per video frame, [B, F, dim].

        Returns:
            Mouth points, [B, F, 2 P], or None without points.
        """
        return None if self.mouth_heard is None else self.mouth_heard(audio)


def clean_mel(spectra: Tensor) -> Tensor:
    """Compute log-mel energies as prediction targets, with mean about 0 and spread about 1.

    Args:
        spectra: Log power spectra, [..., N_BINS].

    Returns:
        [..., N_MELS].
    """
    filters = torch.from_numpy(mel_filters(SAMPLE_RATE, N_FFT, N_MELS).copy()).to(spectra.device)
    filters = filters / filters.sum(1, keepdim=True)
    return (torch.log(spectra.exp() @ filters.T + MEL_FLOOR) + 5.0) / 4.0


def frame_features(aligned: Aligned) -> Tensor:
    """Average the audio features of each video frame.

    Args:
        aligned: Features [B, F * 2, dim] and logits.

    Returns:
        [B, F, dim].
    """
    features = aligned.features
    return features.unflatten(1, (-1, LABELS_PER_FRAME)).mean(2)

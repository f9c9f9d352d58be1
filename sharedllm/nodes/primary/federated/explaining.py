"""What moved one token: which specialists, which machines and layers of each, and what else might have come.

The text goes through the pipelines once more. For a mixture that is done twice: first as it was computed when
it was written, so that the weights and responsibilities are the same bits as then; then each member's last
position, layer by layer.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from typing import Any

import torch
from torch import Tensor

from sharedllm.attribution import log_shares
from sharedllm.combiner import Blend
from sharedllm.model import Sampling, Tokenizer
from sharedllm.nodes.api.service import Ask
from sharedllm.nodes.errors import NoPipeline
from sharedllm.nodes.primary.federated.mixed import Weighed
from sharedllm.nodes.primary.federated.repertoire import Part
from sharedllm.nodes.primary.sequence import Sequence, Telling

__all__ = ["Explaining"]

_PATIENCE_S = 30.0
_ALTERNATIVES = 8
_ONE = Sampling(max_tokens=1)


class Explaining:
    """Explains tokens of ``tokenizer``; ``begin`` makes a request's sequences, ready to be submitted."""

    def __init__(self, tokenizer: Tokenizer, begin: Callable[[Ask, Tokens[Part]], list[Sequence]]) -> None:
        self._tokenizer, self._begin = tokenizer, begin

    def explained(
        self, parts: Tokens[Part], prompt: tuple[int, ...], token: int, said: tuple[int, ...]
    ) -> dict[str, Any]:
        """Say what moved ``token`` after ``prompt`` and ``said``. Raises ``NoPipeline``."""
        if len(parts) == 1:
            traced, logits_V = self._traced(parts[0], prompt + said, token)
            more: dict[str, Any] = {"responsibilities": [], "members": []}
            return self._outcome(token, torch.log_softmax(logits_V, dim=-1)) | traced | more
        blend, logw_N = self._weighed(parts, prompt, said)
        a_N = blend.evidence(token)
        shares = log_shares(a_N[:, None], logw_N[:, None])
        responsibilities = [
            {
                "name": part.name,
                "share": float(shares.responsibility_NT[i, 0]),
                "logprob": float(a_N[i]),
                "weight": float(logw_N[i].exp()),
                "evidence": float(shares.evidence_NT[i, 0]),
                "prior": float(shares.prior_NT[i, 0]),
            }
            for i, part in enumerate(parts)
        ]
        members = [{"name": part.name, **self._traced(part, prompt + said, token)[0]} for part in parts]
        leading = int(shares.responsibility_NT[:, 0].argmax())
        return {
            **self._outcome(token, blend.m_V),
            **{key: members[leading][key] for key in ("embedding", "contributions", "total")},
            "leading": parts[leading].name,
            "responsibilities": responsibilities,
            "diversity": float(shares.diversity_T[0]),
            "members": members,
        }

    def proved(self, part: Part) -> None:
        """Send one token through a pipeline. Raises ``NoPipeline`` if none comes back."""
        self._last(part, (self._tokenizer.bos or 0,))

    def _outcome(self, token: int, logp_V: Tensor) -> dict[str, Any]:
        """The token and what else might have come."""
        best = logp_V.topk(min(_ALTERNATIVES, len(logp_V)))
        return {
            "token": token,
            "piece": self._tokenizer.decode([token]),
            "logprob": float(logp_V[token]),
            "alternatives": [
                {"token": t, "piece": self._tokenizer.decode([t]), "logprob": logprob}
                for t, logprob in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ],
        }

    def _weighed(
        self, parts: Tokens[Part], prompt: tuple[int, ...], said: tuple[int, ...]
    ) -> tuple[Blend, Tensor]:
        """What the members thought of the next token, and how much each weighed: ``logw_N``."""
        ask = Ask(prompt, _ONE)
        sequences = self._begin(ask, parts)
        for sequence in sequences:
            sequence.tokens += said
        members = [(part.loop, sequence) for part, sequence in zip(parts, sequences, strict=True)]
        weighed = Weighed(Telling(ask, self._tokenizer), members)
        weighed.submit()
        try:
            return weighed.done.result(_PATIENCE_S)
        except concurrent.futures.TimeoutError:
            weighed.cancel()
            raise _silent(parts[0]) from None

    def _traced(self, part: Part, text: tuple[int, ...], token: int) -> tuple[dict[str, Any], Tensor]:
        """What each machine and layer of one member did for the token, and all its logits."""
        ring = part.loop.ring
        if ring is None:
            raise NoPipeline(part.loop.sentence)
        logits_V, traces_LD = self._last(part, text)
        ends = part.loop.model.ends
        states_SD = torch.cat((ends.embed(text[-1:]), traces_LD))
        layers = ends.contributions(states_SD, token, part.worn.gain_D if part.worn is not None else None)
        if len(layers) != ends.config.layers + 1:
            raise NoPipeline("The pipeline changed while the token was being explained; try again.")
        contributions = [
            {
                **{key: getattr(member, key) for key in ("node", "name", "start", "stop")},
                "logit": sum(layers[member.start + 1 : member.stop + 1]),
                "layers": [{"layer": i, "logit": layers[i + 1]} for i in range(member.start, member.stop)],
            }
            for member in ring.route.members
        ]
        told = {"embedding": layers[0], "contributions": contributions, "total": sum(layers)}
        return told, logits_V

    def _last(self, part: Part, text: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The logits behind a text, and what every layer made of its last position."""
        (sequence,) = self._begin(Ask(text, _ONE), [part])
        done: concurrent.futures.Future[tuple[Tensor, Tensor]] = concurrent.futures.Future()
        sequence.trace = done
        part.loop.submit(sequence)
        try:
            return done.result(_PATIENCE_S)
        except concurrent.futures.TimeoutError:
            part.loop.cancel(sequence)
            raise _silent(part) from None


def _silent(part: Part) -> NoPipeline:
    return NoPipeline(f"No token came back within {_PATIENCE_S:.0f} s. {part.loop.sentence}")

"""What each rule loses on real text, in bits per byte, and how far its guarantee is from being touched.

Three toy specialists read documents of their own domains, the same with three copies of whoever is worst
there (a clone attack), documents of a domain that is nobody's, and their own domains in turns as one text.
Fixed weights and the router were fitted to other documents. A guarantee is the least that is promised:

| rule | no more than |
|---|---|
| uniform, static, router, power | the mean of the specialists, or best + T ln(1/w)/r |
| Bayes | best + ln N |
| fixed share, pruned | the best sequence with k switches + its price, for every k; pruned: who was awake |

*Covered*: inequalities, which hold on any text. *Not covered*: an order among the rules: these are a few
documents and small models.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sharedllm import corpus, store
from sharedllm.bets.specialists import Specialist, specialists
from sharedllm.combiner import (
    Bayes,
    FixedShare,
    Pruned,
    Router,
    Static,
    Uniform,
    best_switching,
    fixed_share_slack,
    mixture,
    power_mean,
    sequence_slack,
    token_log_probabilities,
)
from sharedllm.corpus import Document
from sharedllm.shapes import bits_per_byte
from sharedllm.store import Loaded

__all__ = ["losses"]

_DOMAINS = ("code", "scripture", "drama")
_OUTSIDE = "verse"
_ORDERS = (0.0, 0.5)
_ALPHA = 0.02
_CLONES = 3
_TURN = 128
_MOST_SWITCHES = 24
_LETTERS = 4_000


@dataclasses.dataclass(frozen=True)
class Text:
    """Evidence of one text, the contexts before its tokens, and the power means of the tokens that came."""

    a_NT: Tensor
    context_TF: Tensor
    powers_OT: Tensor
    n_bytes: int

    def cut(self, start: int, stop: int) -> Text:
        """A piece of it; its bytes in proportion."""
        at = slice(start, stop)
        n_bytes = round(self.n_bytes * len(range(self.a_NT.shape[1])[at]) / self.a_NT.shape[1])
        return Text(self.a_NT[:, at], self.context_TF[at], self.powers_OT[:, at], n_bytes)


Judged = tuple[float, float]
"""A loss and the slack of its guarantee, nats; of ``_SKIPPED``, forwards that were not made, and all."""

_SKIPPED = "pruned: skipped"


def losses(quick: bool) -> list[str]:
    """Lines of a table: a rule each, and a situation per column."""
    tokens, documents = (512, 1) if quick else (1_000, 4)
    base = store.load("toy")
    mixed = specialists(base, _DOMAINS, tokens=20_000 if quick else 200_000, lr=0.003, seed=0)

    def read(found: Sequence[Document], clones: int = 0) -> list[Text]:
        chosen = [found[len(found) * i // documents] for i in range(documents)]
        return [_read(base, mixed, document, tokens, clones) for document in chosen]

    domains = [corpus.domain(name) for name in _DOMAINS]
    fitted = _joined([text for domain in domains for text in read(domain.validation)])
    own = [text for domain in domains for text in read(domain.test)]
    cloned = [text for domain in domains for text in read(domain.test, _CLONES)]
    turns = range(0, max(text.a_NT.shape[1] for text in own), _TURN)
    switching = _joined([text.cut(at, at + _TURN) for at in turns for text in own if at < text.a_NT.shape[1]])
    situations = {
        "own domains": own,
        f"{_CLONES} clones of the worst": cloned,
        "nobody's domain": read(corpus.domain(_OUTSIDE).test),
        f"turns of {_TURN} tokens": [switching],
    }
    return _table(situations, Static.fit(fitted.a_NT), Router.fit(fitted.a_NT, fitted.context_TF))


def _table(situations: dict[str, list[Text]], static: Static, router: Router) -> list[str]:
    rows: dict[str, list[str]] = {}
    for texts in situations.values():
        n_bytes = sum(text.n_bytes for text in texts)
        judged = [_judged(text, static, router) for text in texts]
        for rule in judged[0]:
            first, second = (sum(one[rule][i] for one in judged) for i in range(2))
            if rule == _SKIPPED:
                cell = f"{100 * first / second:.0f} % of forwards"
            else:
                cell = f"{bits_per_byte(first, n_bytes):.3f}"
                cell += "" if math.isnan(second) else f" ({bits_per_byte(second, n_bytes):+.3f})"
            rows.setdefault(rule, []).append(cell)
    return [
        f"bits per byte (and the slack of its guarantee), {len(_DOMAINS)} toy specialists; share {_ALPHA}",
        f"{'':24}" + "".join(f"{name:>24}" for name in situations),
        *(f"{rule:24}" + "".join(f"{cell:>24}" for cell in cells) for rule, cells in rows.items()),
    ]


def _read(base: Loaded, mixed: Sequence[Specialist], document: Document, tokens: int, clones: int) -> Text:
    """Let all read the beginning of a document, and copy whoever is worst on it."""
    ids = base.tokenizer.encode(document.text[:_LETTERS])[: tokens + 1]
    tokens_T, came_T = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
    logp_NTV = torch.stack([one.logits(tokens_T) for one in mixed]).double().log_softmax(-1)
    worst = int(token_log_probabilities(logp_NTV, came_T).sum(1).argmin())
    logp_NTV = torch.cat([logp_NTV, logp_NTV[worst].expand(clones, -1, -1)])
    powers = [power_mean(logp_NTV, r).gather(1, came_T[:, None])[:, 0] for r in _ORDERS]
    with torch.no_grad():
        context_TF = base.model.norm(base.model.hidden(tokens_T[None]))[0]
    n_bytes = len(base.tokenizer.decode(ids[1:]).encode())
    return Text(token_log_probabilities(logp_NTV, came_T), context_TF, torch.stack(powers), n_bytes)


def _joined(texts: Sequence[Text]) -> Text:
    return Text(
        torch.cat([text.a_NT for text in texts], 1),
        torch.cat([text.context_TF for text in texts]),
        torch.cat([text.powers_OT for text in texts], 1),
        sum(text.n_bytes for text in texts),
    )


def _judged(text: Text, static: Static, router: Router) -> dict[str, Judged]:
    """Every rule on one text, its weights from the beginning."""
    a_NT, n = text.a_NT, len(text.a_NT)
    even_NT, copies = Uniform(n).run(a_NT), n - len(_DOMAINS)
    shared_NT = FixedShare(n, _ALPHA).run(a_NT)
    course = Pruned(FixedShare(n, _ALPHA)).course(a_NT)
    bayes = sequence_slack(a_NT, Bayes(n).run(a_NT))
    judged = {
        "best single specialist": (float(best_switching(a_NT, 0)[0]), math.nan),
        "mean of specialists": (-float(a_NT.mean(0).sum()), math.nan),
        "uniform": _fixed(a_NT, even_NT, mixture(a_NT, even_NT), 1.0),
        "Bayes": (bayes.total_nats, bayes.within_best_nats),
        "fixed share": _switched(a_NT, shared_NT),
        "pruned fixed share": _switched(course.scored_NT, course.all_logw_NT),
        _SKIPPED: (a_NT.numel() - course.asked, a_NT.numel()),
    }
    for r, m_T in zip(_ORDERS, text.powers_OT, strict=True):
        judged[f"power mean, r = {r:g}"] = _fixed(a_NT, even_NT, m_T, r)
    # fitted again, fixed weights and a router would share one weight among clones: to the same mixture
    first_NT = a_NT[: n - copies]
    for name, weights in (("static", static), ("router", router)):
        logw_NT = weights.run(first_NT, text.context_TF if weights is router else None)
        judged[name] = _fixed(first_NT, logw_NT, mixture(first_NT, logw_NT), 1.0)
    return judged


def _fixed(a_NT: Tensor, logw_NT: Tensor, m_T: Tensor, r: float) -> Judged:
    """Weights that promise the weighted mean of the specialists, and a floor below each."""
    promised = -float((logw_NT.exp() * a_NT).sum())
    if r > 0:
        promised = min(promised, -float((a_NT + logw_NT / r).sum(1).max()))
    return -float(m_T.sum()), promised + float(m_T.sum())


def _switched(a_NT: Tensor, logw_NT: Tensor) -> Judged:
    lost = -float(mixture(a_NT, logw_NT).sum())
    return lost, float(fixed_share_slack(a_NT, logw_NT, _ALPHA, _MOST_SWITCHES).min())

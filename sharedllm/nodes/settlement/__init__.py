"""Who gave whom how many bytes, and who is paid for an answer: ledgers that both sides sign.

What must not happen here: a unit or a byte that is made, lost or counted twice; a balance that rests on one
side's word (``seed`` shows what comes of that); floating point in an amount; a private key in a journal;
torch.

Bets that rest on it: b011, b067 and b101 (bytes), b014 and b068 (royalties).
"""

from sharedllm.nodes.settlement.account import WINDOW, Account
from sharedllm.nodes.settlement.errors import CreditSpent, JournalBroken, StatementRefused
from sharedllm.nodes.settlement.journal import Entry, Journal, Journals, Memory
from sharedllm.nodes.settlement.royalty import HUNDREDTHS, TRAINER_PERCENT, Payment, Royalties, Split, pay
from sharedllm.nodes.settlement.seed import OneSided, Unsigned
from sharedllm.nodes.settlement.statements import STATEMENT_BYTES, Signer, Statement
from sharedllm.nodes.settlement.transfers import Acknowledgement, Claim, Receipt, net

__all__ = [
    "HUNDREDTHS",
    "STATEMENT_BYTES",
    "TRAINER_PERCENT",
    "WINDOW",
    "Account",
    "Acknowledgement",
    "Claim",
    "CreditSpent",
    "Entry",
    "Journal",
    "JournalBroken",
    "Journals",
    "Memory",
    "OneSided",
    "Payment",
    "Receipt",
    "Royalties",
    "Signer",
    "Split",
    "Statement",
    "StatementRefused",
    "Unsigned",
    "net",
    "pay",
]

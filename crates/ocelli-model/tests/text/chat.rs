//! Templates against the reference: `fixtures/parity/chat.py` wrote the expected texts.

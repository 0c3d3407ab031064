"""One photograph: decoded, checked, framed, hashed and encoded."""

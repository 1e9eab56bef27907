# JSON's escapes for characters beyond the first 65,536. Loaded only when a text has an escape.


def joined(body):
    """JSON (bytes) in which each pair of escapes that stands for one character (RFC 8259, 7) is that character in
    UTF-8. Half a pair becomes U+FFFD, as UTF-8 has no form for it. ValueError if it is not JSON.
    """
    done = bytearray()
    start = at = 0
    while True:
        at = body.find(b"\\", at)
        if at < 0:
            return done + body[start:]
        size = 2
        if body[at + 1 : at + 2] == b"u":
            size = 6
            high = int(body[at + 2 : at + 6], 16)
            if high & 0xF800 == 0xD800:
                low = int(body[at + 8 : at + 12], 16) if body[at + 6 : at + 8] == b"\\u" else 0
                character = 0xFFFD
                if high < 0xDC00 and low & 0xFC00 == 0xDC00:
                    size = 12
                    character = 0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF)
                done.extend(body[start:at] + chr(character).encode())
                start = at + size
        at += size

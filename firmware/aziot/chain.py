# JSON with a certificate chain in it, of which no second copy is made: DPS and IoT Hub each answer with one.
import json


def loads(body, *path):
    """json.loads() of a bytes-like, but the texts of the list at path are memoryviews of body, if it is in plain form.

    ValueError if body is not JSON.
    """
    body = memoryview(body)
    texts, rest = _cut(body)
    try:
        chain = answer = json.loads(rest)
        for name in path:
            chain = chain[name]
        if texts and chain == [""] * len(texts):
            chain[:] = texts
            return answer
    except (KeyError, TypeError, ValueError):
        pass
    return json.loads(str(body, "utf-8"))  # the long texts, if there are any, were others


def _cut(body):
    # The texts of more than 300 characters, and the JSON with each of them empty.
    texts = []
    rest = bytearray()
    start = end = 0
    plain = True  # the text so far
    for i, c in enumerate(body):
        if c == 0x5C:  # a backslash: more than base64
            plain = False
        elif c == 0x22:  # a quote
            if i - start > 300 and plain:
                texts.append(body[start + 1 : i])
                rest.extend(body[end : start + 1])
                end = i
            start = i
            plain = True
    rest.extend(body[end:])
    return texts, rest

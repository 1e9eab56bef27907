# JSON with a certificate chain in it, of which no second copy is made: DPS and IoT Hub each answer with one.
import json


def loads(body, *path):
    """json.loads() of bytes, but the texts of the list at path are memoryviews of body, if it is in plain form.

    ValueError if body is not JSON.
    """
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
    # The texts of more than 300 characters between two quotes, and the JSON with each of them empty.
    view = memoryview(body)
    texts = []
    rest = bytearray()
    start = end = 0
    while start >= 0:
        quote = body.find(b'"', start + 1)
        # a backslash: more than base64
        if quote - start > 300 and body.find(b"\\", start, quote) < 0:
            texts.append(view[start + 1 : quote])
            rest.extend(view[end : start + 1])
            end = quote
        start = quote
    rest.extend(view[end:])
    return texts, rest

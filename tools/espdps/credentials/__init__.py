"""Keys, certificate signing requests, certificates and the files that hold them: made, read and judged on the PC.

Nothing here knows device folders, boards, networks or the terminal."""

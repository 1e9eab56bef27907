"""Tokens of Microsoft Entra ID for the DPS service API, by the package azure-identity, which is optional.
No token is kept here, shown, or written anywhere."""

from __future__ import annotations

import logging
from collections.abc import Callable

from espdps.errors import WRONG_USE, ToolError

# The resource that tokens for the DPS service API are made for (documentation of DPS and Entra ID).
SCOPE = "https://azure-devices-provisioning.net/.default"


def authorization() -> Callable[[], str]:
    """What makes the header of a call, with the account that DefaultAzureCredential finds. Raises ToolError."""
    try:
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import DefaultAzureCredential
    except ImportError:
        hint = "Install it: pip install 'esp-dps[entra]'"
        raise ToolError("--auth entra needs the package azure-identity", hint, WRONG_USE) from None
    logging.getLogger("azure").addHandler(logging.NullHandler())  # it warns about each way that it tries in vain
    credential = DefaultAzureCredential()

    def bearer() -> str:
        try:
            return f"Bearer {credential.get_token(SCOPE).token}"
        except ClientAuthenticationError as error:
            said = str(error.message or "").strip().partition("\n")[0]
            raise ToolError(
                f"Microsoft Entra ID gave no token: {said if said.isprintable() else repr(said)}",
                "Sign in with az login, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET.",
            ) from None

    return bearer

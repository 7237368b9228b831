# SPDX-License-Identifier: GPL-3.0-or-later
"""One account in one region, called through boto3, with the credentials that the provider's own tools use.

EC2, EBS direct, SSM and STS are services with an address each. A provider that is not Amazon has only those that its
target names. Every call has time limits, and its failure is an Error with one sentence.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from debian_cloud.errors import USAGE, Error
from debian_cloud.text.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

try:
    import boto3
    import botocore.exceptions as failures
    from botocore.config import Config
    from botocore.parsers import ResponseParserError
except ImportError:
    raise Error("targets of the driver ec2 need python3-boto3", "apt install python3-boto3", USAGE) from None

POLL: Final = 3.0
"""Seconds between two questions of a loop."""
VISIBLE: Final = 20.0
"""Seconds in which what was made is known everywhere."""
WORKERS: Final = 16
"""Requests at a time."""
_CONNECT: Final = 10
_READ: Final = 60
"""Seconds in which a service accepts a connection, and sends the next bytes of its answer."""
_ATTEMPTS: Final = 5
_LONGEST: Final = 300
"""Characters of a service's message that are shown."""
_PAGES: Final = 1000
_CREDENTIALS: Final = (
    "AuthFailure", "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "InvalidAccessKeyId",
    "MissingAuthenticationToken", "RequestExpired", "SignatureDoesNotMatch", "UnrecognizedClientException",
)  # fmt: skip
_RIGHTS: Final = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
_ALLOWED: Final = "DryRunOperation"
_IDENTIFIER: Final = re.compile("[a-z]{1,8}-[0-9a-f]{8,17}")
_making: Final = threading.Lock()


class RefusedError(Error):
    """A service refused a call; `code` is its own word for the reason."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


@dataclass(frozen=True, slots=True)
class Account:
    """Who calls which region; `endpoints` are (service, address), none for Amazon's own."""

    target: str
    region: str
    profile: str = ""
    endpoints: tuple[tuple[str, str], ...] = ()
    _session: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, target: str, region: str, profile: str, endpoints: tuple[tuple[str, str], ...]) -> Account:
        """The account of a profile (empty: of the environment), in its own region if none is given."""
        try:
            session = boto3.session.Session(profile_name=profile or None, region_name=region or None)
        except (failures.BotoCoreError, ValueError) as error:
            raise Error(
                f"the profile of target {target} cannot be used: {printable(str(error), _LONGEST)}",
                "see ~/.aws/config, and `aws configure --profile`",
                USAGE,
            ) from None
        if not session.region_name:
            raise Error(f"target {target} has no region", "add the field Region to its file", USAGE)
        return cls(target, session.region_name, profile, endpoints, session)

    def elsewhere(self, region: str) -> Account:
        """The same account in another region."""
        if region == self.region:
            return self
        if self.endpoints:
            raise Error(
                f"target {self.target} has endpoints, which are those of {self.region}",
                "make a target for each other region",
                USAGE,
            )
        # The same session: another one may ask for a code again.
        return replace(self, region=region)

    def has(self, service: str) -> bool:
        """Whether the target has a service."""
        return not self.endpoints or service in dict(self.endpoints)

    def supports(self, service: str, operation: str, parameter: str = "") -> bool:
        """Whether this boto3 knows an operation, as CamelCase, and a parameter of it."""
        model = _client(self, service).meta.service_model
        known = operation in model.operation_names
        return known and (not parameter or parameter in model.operation_model(operation).input_shape.members)

    def call(self, service: str, operation: str, /, **parameters: object) -> Any:  # noqa: ANN401 - boto3 has no types
        """The answer to a call; `RefusedError` if the service refused it."""
        with_what = f"{service} of target {self.target}"
        try:
            return getattr(_client(self, service), operation)(**parameters)
        except failures.ClientError as error:
            raise _refused(error, with_what) from None
        except (failures.NoCredentialsError, failures.PartialCredentialsError, failures.CredentialRetrievalError):
            raise Error(
                f"there are no credentials for target {self.target}",
                "run `aws configure`, or set AWS_PROFILE",
                USAGE,
            ) from None
        except (failures.HTTPClientError, failures.ConnectionError) as error:
            why = printable(str(error), _LONGEST)
            raise Error(
                f"{with_what} cannot be reached: {why}", "see the fields Endpoint and Region of the target"
            ) from None
        except (failures.BotoCoreError, ResponseParserError) as error:
            raise Error(f"{with_what} could not be called: {printable(str(error), _LONGEST)}") from None

    def pages(self, operation: str, result: str, **parameters: object) -> Iterator[Any]:
        """The members of `result` in all pages of an answer of EC2."""
        token: dict[str, str] = {}
        for _ in range(_PAGES):
            answer = self.call("ec2", operation, **parameters, **token)
            yield from answer.get(result, ())
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}
        raise Error(f"target {self.target} has too many {result}", f"at most {_PAGES} pages are read")

    def allows(self, operation: str, parameters: Mapping[str, object], but: tuple[str, ...] = ()) -> None:
        """Ask EC2 whether it would do something; Error if it would not, for another reason than `but`."""
        try:
            answer = self.call("ec2", operation, **parameters, DryRun=True)
        except RefusedError as error:
            if error.code not in (_ALLOWED, *but):
                raise
            return
        for one in answer.get("Instances", ()):
            self.call("ec2", "terminate_instances", InstanceIds=[one["InstanceId"]])
        raise Error(f"EC2 of target {self.target} did {operation}, although it was only asked whether it would")

    def settled(self, operation: str, **parameters: object) -> Any:  # noqa: ANN401 - boto3 has no types
        """The answer to a call of EC2 about something that was made a moment ago, and may not be known yet."""
        end = time.monotonic() + VISIBLE
        while True:
            try:
                return self.call("ec2", operation, **parameters)
            except RefusedError as error:
                if not error.code.endswith(".NotFound") or time.monotonic() > end:
                    raise
                time.sleep(POLL)


def _client(account: Account, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
    # Threads may call through one client, but not make it from one session.
    with _making:
        return _made(account, service)


@functools.lru_cache(maxsize=256)
def _made(account: Account, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
    if not account.has(service):
        raise Error(
            f"target {account.target} has no {service}",
            f"add the field {'Endpoint' if service == 'ec2' else f'{service.capitalize()}-Endpoint'} to its file",
            USAGE,
        )
    settings = Config(
        connect_timeout=_CONNECT,
        read_timeout=_READ,
        retries={"mode": "standard", "max_attempts": _ATTEMPTS},
        max_pool_connections=WORKERS,
    )
    try:
        return account._session.client(  # noqa: SLF001 - its own module
            service,
            region_name=account.region,
            endpoint_url=dict(account.endpoints).get(service),
            config=settings,
        )
    except (failures.BotoCoreError, ValueError) as error:
        raise Error(
            f"{service} of target {account.target} cannot be used: {printable(str(error), _LONGEST)}",
            "see the fields Endpoint and Region of the target",
            USAGE,
        ) from None


def _refused(error: Any, what: str) -> RefusedError:  # noqa: ANN401 - boto3 has no types
    said = error.response.get("Error", {})
    code, message = str(said.get("Code", "")), printable(str(said.get("Message", "")), _LONGEST)
    if code in _CREDENTIALS:
        return RefusedError(
            code, f"{what} refused the credentials: {message}", "check profile, region and this machine's clock"
        )
    if code in _RIGHTS:
        return RefusedError(
            code, f"{what} does not allow {error.operation_name}: {message}", "ask the account's administrator for it"
        )
    return RefusedError(code, f"{what} refused {error.operation_name}: {printable(code, 80)}: {message}")


def identifier(given: object) -> str:
    """The provider's name for something; Error if it does not look like one: it goes into paths and arguments."""
    text = str(given)
    if not _IDENTIFIER.fullmatch(text):
        raise Error(f"EC2 gave {printable(text, 80)!r} as the id of something", "is the endpoint the right one?")
    return text


@contextlib.contextmanager
def unless(code: str) -> Iterator[None]:
    """Go on if a call is refused for this reason."""
    try:
        yield
    except RefusedError as error:
        if error.code != code:
            raise

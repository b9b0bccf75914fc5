"""Make, list and revoke API keys from the command line."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from captioner.captions.api_keys import api_key_create, api_key_revoke
from captioner.models import ApiKey


class Command(BaseCommand):
    help = "API keys: what programs send as `Authorization: Bearer KEY`."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key and print it; it cannot be shown again")
        create.add_argument("user", help="whom the key acts for")
        create.add_argument("name", help="what will use it")
        listing = verbs.add_parser("list", help="keys by number, oldest first")
        listing.add_argument("user", nargs="?", help="only this user's")
        revoke = verbs.add_parser("revoke", help="end the access of keys")
        revoke.add_argument("key", nargs="+", type=int, help="number, as listed")

    def handle(self, *args: Any, **options: Any) -> None:
        getattr(self, f"_{options['verb']}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        name, longest = options["name"], ApiKey._meta.get_field("name").max_length
        if not name or longest is None or len(name) > longest:
            raise CommandError(f"The name has {len(name)} characters; give it 1 to {longest}.")
        _, secret = api_key_create(_user(options["user"]), name)
        self.stdout.write(secret)

    def _list(self, options: dict[str, Any]) -> None:
        api_keys = ApiKey.objects.select_related("user").order_by("pk")
        if options["user"]:
            api_keys = api_keys.filter(user=_user(options["user"]))
        for key in api_keys:
            state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "in use"
            made = f"{key.created_at:%Y-%m-%d}"
            self.stdout.write(
                "\t".join([str(key.pk), f"{key.prefix}…", key.user.username, made, state, key.name])
            )

    def _revoke(self, options: dict[str, Any]) -> None:
        wanted = set(options["key"])
        missing = wanted - set(ApiKey.objects.filter(pk__in=wanted).values_list("pk", flat=True))
        if missing:
            numbers = ", ".join(map(str, sorted(missing)))
            raise CommandError(f"There is no key with the number {numbers}; see `manage.py api_key list`.")
        count = api_key_revoke(ApiKey.objects.filter(pk__in=wanted))
        self.stdout.write(f"Revoked: {count}; revoked before: {len(wanted) - count}.")


def _user(name: str) -> User:
    user = User.objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"There is no user {name!r}; add one in the admin, at /admin/auth/user/add/.")
    return user

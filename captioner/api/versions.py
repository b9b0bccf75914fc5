"""The model registry, for staff: lists versions and changes which of them serve."""

import math
from typing import Any, cast

from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from captioner.api.access import MayPromote
from captioner.api.parsers import JsonObjectParser
from captioner.api.schema import problems
from models_registry import processes, promotions
from models_registry.models import Alias, ModelVersion, Rollout
from models_registry.versions import version_get, version_pin, version_unpin, versions_retain


class VersionSerializer(serializers.ModelSerializer[ModelVersion]):
    serves_as = serializers.SerializerMethodField(help_text="The aliases that point at it.")
    origin = serializers.CharField(source="readable_facts.origin", allow_null=True)
    licence = serializers.CharField(source="readable_facts.licence", allow_null=True)
    size = serializers.IntegerField(
        source="readable_facts.size", allow_null=True, help_text="Bytes of all files."
    )
    trained_beside = serializers.CharField(
        source="readable_facts.lineage.parent",
        allow_null=True,
        help_text="The champion at the time it was trained.",
    )
    trained_from = serializers.CharField(source="readable_facts.lineage.base", allow_null=True)
    metrics = serializers.DictField(source="readable_facts.lineage.metrics", allow_null=True)
    gate = serializers.DictField(source="readable_facts.lineage.gate", allow_null=True)
    error = serializers.CharField(
        allow_null=True, help_text="Why its manifest cannot be read; the facts in it are then null."
    )

    class Meta:
        model = ModelVersion
        fields = (
            "id",
            "model_name",
            "serves_as",
            "created_at",
            "origin",
            "licence",
            "size",
            "trained_beside",
            "trained_from",
            "metrics",
            "gate",
            "pinned",
            "retired_at",
            "deleted_rows",
            "error",
        )
        read_only_fields = fields

    def get_serves_as(self, version: ModelVersion) -> list[str]:
        return [alias.name for alias in version.aliases.all()]


class RegistrySerializer(serializers.Serializer[Any]):
    """The versions that serve, current alerts, and all versions, newest first."""

    champion = serializers.CharField(allow_null=True)
    challenger = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True, help_text="The version that a rollback would serve.")
    alerts = serializers.ListField(child=serializers.CharField())
    versions = VersionSerializer(many=True)


class ReasonSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=1000, help_text="Your reason, which is kept in the log.")


class RollbackRequestSerializer(ReasonSerializer):
    expected = serializers.CharField(
        required=False,
        max_length=100,
        help_text="The champion you want to replace; nothing changes if another one serves by now.",
    )


class ShareField(serializers.FloatField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=1, required=False, **kwargs)

    def to_internal_value(self, data: Any) -> float:
        share = super().to_internal_value(data)
        if not math.isfinite(share):
            self.fail("invalid")
        return share


class RolloutSerializer(serializers.ModelSerializer[Rollout]):
    canary_share = ShareField(help_text="Share of photos that a challenger answers.")
    shadow_share = ShareField(
        help_text="Share of the champion's photos that a challenger captions as well, without showing it to anybody."
    )

    class Meta:
        model = Rollout
        fields = (
            "canary_share",
            "shadow_share",
            "max_error_rate",
            "max_latency_ratio",
            "max_rating_drop",
            "min_captions",
            "min_ratings",
        )
        read_only_fields = fields[2:]


class RetentionRequestSerializer(serializers.Serializer[Any]):
    keep = serializers.IntegerField(
        min_value=0, max_value=10_000, default=5, help_text="How many of the newest versions are always kept."
    )
    dry_run = serializers.BooleanField(default=True, help_text="Only list what would be removed.")


class RetentionSerializer(serializers.Serializer[Any]):
    dry_run = serializers.BooleanField()
    versions = VersionSerializer(many=True, help_text="The versions whose files are, or would be, removed.")


class PromotionRequestSerializer(ReasonSerializer):
    alias = serializers.ChoiceField(choices=Alias.Name.choices, default=Alias.Name.CHAMPION)


@extend_schema_view(
    list=extend_schema(
        summary="List model versions and which of them serve",
        operation_id="models_list",
        responses={200: RegistrySerializer, **problems()},
    ),
    promote=extend_schema(
        summary="Serve a version, or try it as the challenger",
        request=PromotionRequestSerializer,
        responses={200: VersionSerializer, **problems(404, 409, 415, 422)},
    ),
    rollback=extend_schema(
        summary="Serve the champion before this one again",
        request=RollbackRequestSerializer,
        responses={200: VersionSerializer, **problems(409, 415, 422)},
    ),
    pin=extend_schema(
        summary="Protect a version's files from retention",
        request=None,
        responses={200: VersionSerializer, **problems(404)},
    ),
    unpin=extend_schema(
        summary="Let retention remove a version's files again",
        request=None,
        responses={200: VersionSerializer, **problems(404)},
    ),
    challenger=extend_schema(
        summary="Take the challenger back",
        parameters=[ReasonSerializer],
        responses={204: None, **problems(404, 422)},
    ),
    rollout=extend_schema(
        summary="Change how a challenger is tried",
        description=(
            "Fields that are not sent keep their value. The answer includes the limits at which a challenger is taken"
            " back automatically."
        ),
        request=RolloutSerializer,
        responses={200: RolloutSerializer, **problems(415, 422)},
    ),
    retain=extend_schema(
        summary="Remove the files of old versions",
        description=(
            "Always kept: versions that an alias points at or a rollback would serve, pinned ones, the newest, and the"
            " versions that any of these were trained from. Nothing is removed unless `dry_run` is false."
        ),
        request=RetentionRequestSerializer,
        responses={200: RetentionSerializer, **problems(415, 422)},
    ),
)
class VersionViewSet(ViewSet):
    """For staff that may change what serves."""

    permission_classes = [MayPromote]
    parser_classes = [JsonObjectParser]
    lookup_value_converter = "slug"

    def list(self, request: Request) -> Response:
        aliases = promotions.aliases_get()
        answer = {
            "champion": aliases.get(Alias.Name.CHAMPION),
            "challenger": aliases.get(Alias.Name.CHALLENGER),
            "previous": promotions.champion_previous(),
            "alerts": processes.alerts_current(),
            "versions": ModelVersion.objects.prefetch_related("aliases"),
        }
        return Response(RegistrySerializer(answer).data)

    @action(detail=True, methods=["post"])
    def promote(self, request: Request, pk: str) -> Response:
        wish = PromotionRequestSerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        version = version_get(pk)
        promotions.version_promote(version, **wish.validated_data, by=cast(User, request.user))
        return Response(VersionSerializer(version).data)

    @action(detail=False, methods=["post"])
    def rollback(self, request: Request) -> Response:
        wish = RollbackRequestSerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        version = promotions.champion_rollback(**wish.validated_data, by=cast(User, request.user))
        return Response(VersionSerializer(version).data)

    @action(detail=True, methods=["post"])
    def pin(self, request: Request, pk: str) -> Response:
        version_pin(version_get(pk))
        return Response(VersionSerializer(version_get(pk)).data)

    @action(detail=True, methods=["post"])
    def unpin(self, request: Request, pk: str) -> Response:
        version_unpin(version_get(pk))
        return Response(VersionSerializer(version_get(pk)).data)

    @action(detail=False, methods=["delete"])
    def challenger(self, request: Request) -> Response:
        wish = ReasonSerializer(data=request.query_params)
        wish.is_valid(raise_exception=True)
        if promotions.challenger_clear(**wish.validated_data, by=cast(User, request.user)) is None:
            raise NotFound("There is no challenger.")
        return Response(status=204)

    @action(detail=False, methods=["patch"])
    def rollout(self, request: Request) -> Response:
        wish = RolloutSerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        return Response(RolloutSerializer(promotions.rollout_update(**wish.validated_data)).data)

    @action(detail=False, methods=["post"])
    def retain(self, request: Request) -> Response:
        wish = RetentionRequestSerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        versions = versions_retain(**wish.validated_data)
        answer = {"dry_run": wish.validated_data["dry_run"], "versions": versions}
        return Response(RetentionSerializer(answer).data)

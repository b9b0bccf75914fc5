"""Staff's view of the registry: which versions there are, what serves, and a way to change that."""

from typing import Any, cast

from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from captioner.api.parsers import JsonObjectParser
from captioner.api.permissions import MayPromote
from captioner.api.schema import problems
from models_registry import processes
from models_registry import services as registry
from models_registry.models import Alias, ModelVersion


class VersionSerializer(serializers.ModelSerializer[ModelVersion]):
    serves_as = serializers.SerializerMethodField(help_text="The aliases that point at it.")
    origin = serializers.CharField(source="readable_facts.origin", allow_null=True)
    licence = serializers.CharField(source="readable_facts.licence", allow_null=True)
    size = serializers.IntegerField(
        source="readable_facts.size", allow_null=True, help_text="Bytes of all files."
    )
    trained_beside = serializers.CharField(
        source="readable_facts.lineage.parent", allow_null=True, help_text="The champion when it was trained."
    )
    trained_from = serializers.CharField(source="readable_facts.lineage.base", allow_null=True)
    metrics = serializers.DictField(source="readable_facts.lineage.metrics", allow_null=True)
    gate = serializers.DictField(source="readable_facts.lineage.gate", allow_null=True)
    error = serializers.CharField(
        allow_null=True, help_text="Why its manifest cannot be read; what stands there is then null."
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
            "error",
        )
        read_only_fields = fields

    def get_serves_as(self, version: ModelVersion) -> list[str]:
        return [alias.name for alias in version.aliases.all()]


class RegistrySerializer(serializers.Serializer[Any]):
    """What serves, what is wrong, and all versions, newest first."""

    champion = serializers.CharField(allow_null=True)
    challenger = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True, help_text="What a rollback would go to.")
    alerts = serializers.ListField(child=serializers.CharField())
    versions = VersionSerializer(many=True)


class ReasonSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=1000, help_text="Why; it is kept in the log.")


class RollbackRequestSerializer(ReasonSerializer):
    expected = serializers.CharField(
        required=False,
        max_length=100,
        help_text="The champion that is to go; if another one serves by now, nothing is changed.",
    )


class PromotionRequestSerializer(ReasonSerializer):
    alias = serializers.ChoiceField(choices=Alias.Name.choices, default=Alias.Name.CHAMPION)


@extend_schema_view(
    list=extend_schema(
        summary="Model versions, and what serves",
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
)
class VersionViewSet(ViewSet):
    """For staff that may change what serves."""

    permission_classes = [MayPromote]
    parser_classes = [JsonObjectParser]
    lookup_value_converter = "slug"

    def list(self, request: Request) -> Response:
        aliases = registry.aliases_get()
        answer = {
            "champion": aliases.get(Alias.Name.CHAMPION),
            "challenger": aliases.get(Alias.Name.CHALLENGER),
            "previous": registry.champion_previous(),
            "alerts": processes.alerts_current(),
            "versions": ModelVersion.objects.prefetch_related("aliases"),
        }
        return Response(RegistrySerializer(answer).data)

    @action(detail=True, methods=["post"])
    def promote(self, request: Request, pk: str) -> Response:
        wish = PromotionRequestSerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        version = registry.version_get(pk)
        registry.version_promote(version, **wish.validated_data, by=cast(User, request.user))
        return Response(VersionSerializer(version).data)

    @action(detail=False, methods=["post"])
    def rollback(self, request: Request) -> Response:
        wish = RollbackRequestSerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        version = registry.champion_rollback(**wish.validated_data, by=cast(User, request.user))
        return Response(VersionSerializer(version).data)

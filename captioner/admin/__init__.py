"""The administrators' side. Django looks for `captioner.admin`; each module registers its model."""

from django.contrib import admin

from captioner.admin import (  # noqa: F401  they register what they show
    api_keys,
    captions,
    feedback,
    imports,
    jobs,
    photos,
    trials,
    users,
)

admin.site.site_header = "Captioner"
admin.site.site_title = "Captioner"
admin.site.enable_nav_sidebar = False  # lists need the width; every page leads to the index
admin.site.index_title = "Review and records"

"""The boundaries' own use of the running site."""

from tests.site.conftest import box as box

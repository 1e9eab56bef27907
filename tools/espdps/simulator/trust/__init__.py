"""Certificates, authorities, certificate chains and SAS tokens: made and judged.

Nothing here knows enrollments or devices."""

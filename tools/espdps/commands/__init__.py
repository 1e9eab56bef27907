"""The commands of `esp-dps`, one module a subject: each reads its options, calls the part that does the work and says
how it went. The work itself is done elsewhere."""

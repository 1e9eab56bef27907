"""What esp-dps measures of itself, one module a subject: real runs, and no figure that was not measured.
A subject is a function that gets an empty folder to work in and returns Rows."""

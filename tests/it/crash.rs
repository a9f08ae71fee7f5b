//! SIGKILL at any moment loses nothing that was acknowledged.

//! Whom the tools talk to: a daemon over its UAPI socket, or the kernel over generic netlink.

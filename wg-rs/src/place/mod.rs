//! Interfaces made, found and moved, in network namespaces and containers.

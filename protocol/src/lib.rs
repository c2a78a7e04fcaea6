//! What agent, service and command line say to each other: slice frames, orders, admin messages.

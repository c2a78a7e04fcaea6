//! When things happen: supervisors and their children; actix lives here.

//! Takes the place of two functions of the C library, so that nothing in a simulated world meets the real one by accident.
//!
//! `HashMap` seeds itself, `Uuid` and `ObjectId` count from random bytes, libraries look at the clock: all of them go through
//! `getrandom` and `clock_gettime`. On a thread that simulates, the first repeats itself from the seed and the second stands
//! still; on every other thread both ask the kernel. Production code must not need this; the meta-test of one seed in two
//! processes shows that nothing else leaks in.
#![allow(unsafe_code)]

use std::cell::Cell;

use libc::{c_int, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};

thread_local! {
    /// The state of the generator; `None` on threads that do not simulate. Plain data: usable at any moment of a thread.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The second at which every simulated world begins: 2024-01-01.
pub const BEGIN_SECONDS: i64 = 1_704_067_200;

/// Makes this thread a simulating one.
pub fn simulate(seed: u64) {
    SEED.set(Some(seed ^ 0x9e37_79b9_7f4a_7c15));
}

/// Splitmix64: good enough for hash seeds, and without any state but one number.
fn next() -> Option<u64> {
    let state = SEED.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    SEED.set(Some(state));
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(z ^ (z >> 31))
}

/// As `getrandom(2)`.
///
/// # Safety
/// `buffer` points to `len` writable bytes, as the C library demands of its callers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    if SEED.get().is_none() {
        // SAFETY: the arguments are handed on as they came.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as ssize_t };
    }
    for at in 0..len {
        let byte = next().unwrap_or_default() as u8;
        // SAFETY: `at < len`, and the caller promises `len` writable bytes.
        unsafe { buffer.cast::<u8>().add(at).write(byte) };
    }
    len as ssize_t
}

/// As `clock_gettime(2)`.
///
/// # Safety
/// `time` points to a writable `timespec`, as the C library demands of its callers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if SEED.get().is_none() {
        // SAFETY: the arguments are handed on as they came.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int };
    }
    // SAFETY: the caller promises a writable `timespec`.
    unsafe {
        (*time).tv_sec = BEGIN_SECONDS;
        (*time).tv_nsec = 0;
    }
    0
}

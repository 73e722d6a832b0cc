//! Says what is in pictures of 28 x 28 grey bytes each, read from stdin.
//!
//!     bitinfer export-c examples/lenet5.bin -o .
//!     cc -O2 -c bitinfer_lenet5.c && ar rc libbitinfer_lenet5.a bitinfer_lenet5.o
//!     rustc -O -L . -l static=bitinfer_lenet5 -l m examples/embed/classify.rs

use std::io::Read;

/// As bitinfer_lenet5.h has it.
const INPUTS: usize = 784;
const OUTPUTS: usize = 10;

extern "C" {
    fn bitinfer_lenet5_run(pixels: *const u8, logits: *mut f32) -> i32;
}

fn main() {
    let mut pixels = [0u8; INPUTS];
    let mut logits = [0f32; OUTPUTS];
    let mut input = std::io::stdin().lock();
    while input.read_exact(&mut pixels).is_ok() {
        // Both arrays are as long as the header says, and nobody else calls.
        let code = unsafe { bitinfer_lenet5_run(pixels.as_ptr(), logits.as_mut_ptr()) };
        assert!(code == 0, "bitinfer_lenet5_run: code {}", code);
        let best = (0..OUTPUTS).fold(0, |a, b| if logits[b] > logits[a] { b } else { a });
        println!("{} {:e}", best, logits[best]);
    }
}

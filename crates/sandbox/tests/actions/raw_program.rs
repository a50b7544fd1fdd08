//! Tiny programs that make the system calls they are told to, with numbers for
//! arguments, and write the results to standard output: what a C library would
//! never do, without a C library and without unsafe code here.

/// Calls in order. Arguments are numbers; 0 is a null pointer.
#[derive(Default)]
pub(crate) struct RawProgram(Vec<u8>);

/// The program's load address; the file is one segment.
const BASE: u64 = 0x40_0000;

/// Memory behind the program for results.
pub(crate) const RESULTS: u64 = 0x50_0000;
const RESULTS_BYTES: u64 = 0x1_0000;

/// Memory for what calls write that goes nowhere.
pub(crate) const SCRATCH: u64 = RESULTS + RESULTS_BYTES - 4096;

impl RawProgram {
    /// The program as an ELF file (elf(5)): a header, two segments, the code.
    pub(crate) fn build(mut self) -> Vec<u8> {
        self.finish();
        let headers = 64 + 2 * 56;
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        elf.extend([2, MACHINE].iter().flat_map(|half: &u16| half.to_le_bytes()));
        elf.extend(1_u32.to_le_bytes());
        elf.extend([BASE + headers, 64, 0].iter().flat_map(|long| long.to_le_bytes()));
        elf.extend(0_u32.to_le_bytes());
        elf.extend([64_u16, 56, 2, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
        let length = headers + self.0.len() as u64;
        const READ_EXECUTE: u32 = 5;
        const READ_WRITE: u32 = 6;
        segment(&mut elf, READ_EXECUTE, BASE, length, length);
        segment(&mut elf, READ_WRITE, RESULTS, 0, RESULTS_BYTES);
        elf.extend(self.0);
        elf
    }
}

fn segment(elf: &mut Vec<u8>, flags: u32, address: u64, in_file: u64, in_memory: u64) {
    elf.extend(1_u32.to_le_bytes());
    elf.extend(flags.to_le_bytes());
    let fields = [0, address, address, in_file, in_memory, 4096];
    elf.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
}

/// The results in what a program wrote.
pub(crate) fn results(stdout: &[u8]) -> Vec<i64> {
    stdout.chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap())).collect()
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

#[cfg(target_arch = "x86_64")]
impl RawProgram {
    /// rbx points to where the next result goes.
    pub(crate) fn new() -> Self {
        let mut program = Self::default();
        program.load([0x48, 0xbb], RESULTS);
        program
    }

    /// A call of the 64-bit table.
    pub(crate) fn call(mut self, number: u64, arguments: &[u64]) -> Self {
        // rdi, rsi, rdx, r10, r8, r9
        const REGISTERS: [[u8; 2]; 6] =
            [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
        self.set(number, &REGISTERS, arguments);
        self.0.extend([0x0f, 0x05]);
        self.keep_result();
        self
    }

    /// A call of the 32-bit table, as int 0x80 makes it.
    pub(crate) fn call_i386(mut self, number: u64, arguments: &[u64]) -> Self {
        // ecx, edx, esi, edi; the first, ebx, is in use and therefore kept in r12.
        self.0.extend([0x49, 0x89, 0xdc]);
        const REGISTERS: [[u8; 2]; 5] =
            [[0x48, 0xbb], [0x48, 0xb9], [0x48, 0xba], [0x48, 0xbe], [0x48, 0xbf]];
        self.set(number, &REGISTERS, arguments);
        self.0.extend([0xcd, 0x80]);
        self.0.extend([0x4c, 0x89, 0xe3]);
        // The result has 32 bits: cdqe.
        self.0.extend([0x48, 0x98]);
        self.keep_result();
        self
    }

    fn set(&mut self, number: u64, registers: &[[u8; 2]], arguments: &[u64]) {
        for (index, register) in registers.iter().enumerate() {
            self.load(*register, arguments.get(index).copied().unwrap_or(0));
        }
        self.load([0x48, 0xb8], number);
    }

    fn load(&mut self, register: [u8; 2], value: u64) {
        self.0.extend(register);
        self.0.extend(value.to_le_bytes());
    }

    /// mov [rbx], rax; add rbx, 8
    fn keep_result(&mut self) {
        self.0.extend([0x48, 0x89, 0x03, 0x48, 0x83, 0xc3, 0x08]);
    }

    /// write(1, RESULTS, rbx - RESULTS), exit_group(0).
    fn finish(&mut self) {
        self.load([0x48, 0xbe], RESULTS);
        // mov rdx, rbx; sub rdx, rsi
        self.0.extend([0x48, 0x89, 0xda, 0x48, 0x29, 0xf2]);
        self.load([0x48, 0xbf], 1);
        self.load([0x48, 0xb8], 1);
        self.0.extend([0x0f, 0x05]);
        self.load([0x48, 0xbf], 0);
        self.load([0x48, 0xb8], 231);
        self.0.extend([0x0f, 0x05]);
    }
}

#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

#[cfg(target_arch = "aarch64")]
impl RawProgram {
    /// x19 points to where the next result goes.
    pub(crate) fn new() -> Self {
        let mut program = Self::default();
        program.load(19, RESULTS);
        program
    }

    pub(crate) fn call(mut self, number: u64, arguments: &[u64]) -> Self {
        for register in 0..6 {
            self.load(register, arguments.get(register as usize).copied().unwrap_or(0));
        }
        self.load(8, number);
        // svc 0; str x0, [x19], 8
        self.word(0xd400_0001);
        self.word(0xf800_8660);
        self
    }

    /// movz and three times movk.
    fn load(&mut self, register: u32, value: u64) {
        for part in 0..4 {
            let keep = if part == 0 { 0xd280_0000 } else { 0xf280_0000 };
            let half = (value >> (16 * part)) as u32 & 0xffff;
            self.word(keep | part << 21 | half << 5 | register);
        }
    }

    fn word(&mut self, word: u32) {
        self.0.extend(word.to_le_bytes());
    }

    /// write(1, RESULTS, x19 - RESULTS), exit_group(0).
    fn finish(&mut self) {
        self.load(1, RESULTS);
        // sub x2, x19, x1
        self.word(0xcb01_0262);
        self.load(0, 1);
        self.load(8, 64);
        self.word(0xd400_0001);
        self.load(0, 0);
        self.load(8, 94);
        self.word(0xd400_0001);
    }
}

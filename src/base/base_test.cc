#include <time.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include <gmock/gmock.h>

#include "base/checked.h"
#include "base/control_groups.h"
#include "base/error.h"
#include "base/file.h"
#include "base/folder_lock.h"
#include "base/hash_memory.h"
#include "base/json_depth.h"
#include "base/machine.h"
#include "base/mapped_file.h"
#include "base/new_folder.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "base/start_time.h"
#include "base/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bakestone {
namespace {

std::filesystem::path TestFolder(const char* name) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "bakestone_base" / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

TEST(NewFolder, IsThereWholeOrNotAtAll) {
  namespace fs = std::filesystem;
  const fs::path parent = TestFolder("new_folder"), out = parent / "a" / "b";
  const auto write = [](const NewFolder& folder) {
    WriteFileAtomically(folder.path() / "x", "1");
    WriteFileAtomically(folder.path() / "inner" / "y", "2");
    WriteFileAtomically(folder.path() / "last", "3");
  };
  {
    write(NewFolder(out));
  }
  EXPECT_TRUE(fs::is_empty(parent));
  {
    const NewFolder folder(out);
    WriteFileAtomically(parent / "a" / "somebody's", "x");
  }
  EXPECT_FALSE(fs::exists(out));
  EXPECT_TRUE(fs::exists(parent / "a" / "somebody's"));
  {
    NewFolder folder(out);
    write(folder);
    EXPECT_FALSE(fs::exists(out / "x"));
    folder.Commit("last");
  }
  EXPECT_EQ(ReadFile(out / "inner" / "y", 10), "2");
  EXPECT_EQ(ReadFile(out / "last", 10), "3");
  EXPECT_EQ(std::distance(fs::directory_iterator(out), fs::directory_iterator()), 3);
  EXPECT_THROW(NewFolder{out}, Error);              // not empty
  EXPECT_THROW(NewFolder{out / "x"}, Error);        // a file
  EXPECT_THROW(NewFolder{out / "x" / "z"}, Error);  // inside of a file
  const fs::path empty = parent / "empty";
  fs::create_directory(empty);
  {
    write(NewFolder(empty));
  }
  EXPECT_TRUE(fs::is_empty(empty));  // it was there before
}

TEST(Checked, SaysNoInsteadOfWrapping) {
  EXPECT_EQ(CheckedAdd<uint64_t>(2, 3), 5u);
  EXPECT_EQ(CheckedAdd<uint64_t>(~uint64_t{0}, 1), std::nullopt);
  EXPECT_EQ(CheckedMul<int64_t>(int64_t{1} << 62, 2), std::nullopt);
  EXPECT_EQ(CheckedMul<int64_t>(-4, 3), -12);
}

TEST(Sha256, MatchesFips180Examples) {
  EXPECT_EQ(ToHex(HashOf("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(ToHex(Sha256().Update("a").Update("bc").Finish()), ToHex(HashOf("abc")));
  EXPECT_EQ(ToHex(HashOf("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

// Known answers of the Random123 distribution for philox4x32-10.
TEST(NestsDeeper, CountsBracketsOutsideOfStrings) {
  EXPECT_FALSE(NestsDeeper("[[{}], [[]], {\"a\": [1]}]", 3));
  EXPECT_TRUE(NestsDeeper("[[{\"a\": [", 3));
  EXPECT_FALSE(NestsDeeper("[\"[[[[ \\\" [[[\", 1]", 1));
  EXPECT_FALSE(NestsDeeper("", 0));
}

TEST(Philox, MatchesRandom123KnownAnswers) {
  EXPECT_THAT(Philox(0, 0, 0),
              testing::ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox(~0ull, ~0ull, ~0ull),
              testing::ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
}

TEST(Rng, RestoredCounterContinuesTheSequence) {
  Rng a(7, 1);
  for (int i = 0; i < 10; ++i) a.Normal();
  Rng b(7, 1);
  b.set_counter(a.counter());
  EXPECT_EQ(a.Next(), b.Next());
  double sum = 0, squares = 0;
  for (int i = 0; i < 20000; ++i) {
    const double x = a.Normal();
    sum += x;
    squares += x * x;
    EXPECT_LT(a.Below(7), 7u);
  }
  EXPECT_NEAR(sum / 20000, 0, 0.03);
  EXPECT_NEAR(squares / 20000, 1, 0.05);
}

TEST(AtomicFile, LeavesTheOldFileUntilCommitted) {
  const auto path = TestFolder("atomic") / "a" / "state.bin";
  WriteFileAtomically(path, "old");
  {
    AtomicFile file(path);
    file.Write("new and unfinished");
  }
  EXPECT_EQ(ReadFile(path), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path.parent_path()), {}), 1);
  WriteFileAtomically(path, "new");
  EXPECT_EQ(ReadFile(path), "new");
}

TEST(AtomicFile, FullDiskIsAClearErrorAndTheOldFileStays) {
  if (!std::filesystem::exists("/dev/full")) return;
  const auto folder = TestFolder("full");
  WriteFileAtomically(folder / "x", "old");
  EXPECT_THROW(WriteFileAtomically("/proc/nowhere/x", "new"), Error);
  EXPECT_EQ(ReadFile(folder / "x"), "old");
}

TEST(FolderLock, KeepsASecondOneOutAndEndsWithTheFirst) {
  const auto folder = TestFolder("lock") / "new";
  {
    const FolderLock first(folder);
    try {
      const FolderLock second(folder);
      FAIL() << "two hold the folder";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(folder.string() + ": another run works"));
    }
  }
  const FolderLock again(folder);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(ReadFile, NamesThePathAndTheLimit) {
  const auto path = TestFolder("read") / "f";
  WriteFileAtomically(path, "12345");
  try {
    ReadFile(path, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), testing::HasSubstr(path.string()));
  }
  EXPECT_THROW(ReadFile(path.string() + ".absent"), Error);
  EXPECT_THROW(MappedFile::Open(path.parent_path()), Error);
}

TEST(MappedFile, MapsBytesAndEmptyFiles) {
  const auto path = TestFolder("map") / "f";
  WriteFileAtomically(path, "hello");
  const MappedFile file = MappedFile::Open(path);
  EXPECT_EQ(std::string(file.bytes().begin(), file.bytes().end()), "hello");
  WriteFileAtomically(path, "");
  EXPECT_TRUE(MappedFile::Open(path).bytes().empty());
}

TEST(DropFromPageCache, LeavesTheContentsAndNamesWhatIsMissing) {
  const auto path = TestFolder("drop") / "file";
  WriteFileAtomically(path, "hello");
  DropFromPageCache(path);
  EXPECT_EQ(ReadFile(path), "hello");
  EXPECT_THROW(DropFromPageCache(path.string() + "-none"), Error);
}

TEST(HashMemory, RemembersASettledFileAndNoticesEveryChange) {
  const auto folder = TestFolder("hashes");
  const auto path = folder / "file";
  const HashMemory memory(folder / "memory");
  const auto notes = [&] {
    std::error_code code;
    const std::filesystem::directory_iterator all(folder / "memory", code);
    return code ? 0 : std::distance(all, {});
  };
  WriteFileAtomically(path, "hello");
  EXPECT_EQ(ToHex(memory.HashOf(path)), ToHex(HashOf("hello")));
  EXPECT_EQ(ToHex(memory.HashOf(path, 2)), ToHex(HashOf("hel")));
  EXPECT_EQ(ToHex(memory.HashOf(path, 20)), ToHex(HashOf("")));
  std::this_thread::sleep_for(std::chrono::milliseconds(80));
  EXPECT_EQ(ToHex(memory.HashOf(path)), ToHex(HashOf("hello")));
  EXPECT_EQ(notes(), 1);
  EXPECT_EQ(ToHex(memory.HashOf(path)), ToHex(HashOf("hello")));  // from the note
  const auto time = std::filesystem::last_write_time(path);
  std::ofstream(path) << "jello";
  std::filesystem::last_write_time(path, time);
  EXPECT_EQ(ToHex(memory.HashOf(path)), ToHex(HashOf("jello")));
  EXPECT_THROW(memory.HashOf(folder / "none"), Error);
}

TEST(HashMemory, RecallsWhatItWasToldAndReadsNothing) {
  const auto folder = TestFolder("told_hashes");
  const auto path = folder / "file";
  const HashMemory memory(folder / "memory");
  WriteFileAtomically(path, "hello");
  EXPECT_EQ(memory.Recall(path), std::nullopt);
  memory.Remember(path, HashOf("told"), 2);
  EXPECT_EQ(memory.Recall(path), std::nullopt);  // of the whole file
  EXPECT_EQ(memory.Recall(path, 2), HashOf("told"));
  EXPECT_EQ(memory.HashOf(path, 2), HashOf("told"));
  WriteFileAtomically(path, "jello");
  EXPECT_EQ(memory.Recall(path, 2), std::nullopt);
  EXPECT_THROW(memory.Recall(folder / "none"), Error);
}

TEST(HashMemory, DoesNotBelieveADamagedNote) {
  const auto folder = TestFolder("damaged_hashes");
  WriteFileAtomically(folder / "file", "hello");
  std::this_thread::sleep_for(std::chrono::milliseconds(80));
  const HashMemory memory(folder / "memory");
  memory.HashOf(folder / "file");
  for (const auto& note : std::filesystem::directory_iterator(folder / "memory")) {
    const std::string text = ReadFile(note.path());
    for (const std::string& bad : {std::string(), text.substr(0, text.size() - 9),
                                   text.substr(0, text.size() - 2) + "x\n"}) {
      std::ofstream(note.path()) << bad;
      EXPECT_EQ(ToHex(memory.HashOf(folder / "file")), ToHex(HashOf("hello")));
    }
  }
}

TEST(MeasureStart, StopsAtTheFirstByteAndWaitsForTheEnd) {
  const StartTime start = MeasureStart("/bin/sh", {"-c", "echo word; sleep 1"});
  EXPECT_GT(start.seconds, 0);
  EXPECT_LT(start.seconds, 1);
  EXPECT_GT(start.peak_bytes, 0);
}

TEST(MeasureStart, SaysWhatWentWrong) {
  const auto message = [](const char* program, std::vector<std::string> arguments) {
    try {
      MeasureStart(program, arguments);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message("/no/such/program", {}), testing::HasSubstr("cannot start"));
  EXPECT_THAT(message("/bin/sh", {"-c", "exit 3"}), testing::HasSubstr("code 3"));
  EXPECT_THAT(message("/bin/sh", {"-c", "true"}), testing::HasSubstr("found none"));
}

// A file and the folders it lies in.
void Put(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

TEST(ControlGroups, TakeTheLeastOfAllGroupsAboveOne) {
  const auto folder = TestFolder("groups");
  Put(folder / "self", "0::/outer/inner\n");
  Put(folder / "fs" / "cpu.max", "max 100000\n");
  Put(folder / "fs/outer" / "cpu.max", "150000 100000\n");
  Put(folder / "fs/outer/inner" / "cpu.max", "400000 100000\n");
  Put(folder / "fs/outer" / "memory.max", "max\n");
  Put(folder / "fs/outer/inner" / "memory.max", "1000\n");
  Put(folder / "fs/outer/inner" / "memory.current", "700\n");
  Put(folder / "fs/outer/inner" / "memory.stat", "anon 500\ninactive_file 150\n");
  const ControlGroups groups(folder / "fs", folder / "self");
  EXPECT_EQ(groups.cpu_quota(), 1.5);
  ASSERT_TRUE(groups.memory());
  EXPECT_EQ(groups.memory()->limit, 1000);
  EXPECT_EQ(groups.memory()->available, 450);
}

TEST(ControlGroups, ReadTheFirstVersionToo) {
  const auto folder = TestFolder("groups1");
  Put(folder / "self", "8:pids:/x\n4:memory:/docker/7\n3:cpu,cpuacct:/docker/7\n0::/\n");
  Put(folder / "fs/cpu" / "cpu.cfs_quota_us", "50000\n");  // a container sees its group as the root
  Put(folder / "fs/cpu" / "cpu.cfs_period_us", "100000\n");
  Put(folder / "fs/memory" / "memory.limit_in_bytes", "9223372036854771712\n");
  Put(folder / "fs/memory/docker/7" / "memory.limit_in_bytes", "5000\n");
  Put(folder / "fs/memory/docker/7" / "memory.usage_in_bytes", "9000\n");
  const ControlGroups groups(folder / "fs", folder / "self");
  EXPECT_EQ(groups.cpu_quota(), 0.5);
  ASSERT_TRUE(groups.memory());
  EXPECT_EQ(groups.memory()->available, 0);
}

TEST(ControlGroups, AreNoLimitWhereThereAreNone) {
  const auto folder = TestFolder("groups0");
  Put(folder / "self", "0::/\nnonsense\n3:cpu:/../..\n");
  Put(folder / "fs/cpu" / "cpu.cfs_quota_us", "-1\n");
  Put(folder / "fs/cpu" / "cpu.cfs_period_us", "100000\n");
  EXPECT_FALSE(ControlGroups(folder / "fs", folder / "self").cpu_quota());
  EXPECT_FALSE(ControlGroups(folder / "fs", folder / "self").memory());
  EXPECT_FALSE(ControlGroups(folder / "fs", folder / "missing").cpu_quota());
}

TEST(MemoryProbe, MeasuresSomething) {
  ThreadPool pool(2);
  EXPECT_GT(MemoryProbe(1 << 20).ReadBandwidth(pool), 0);
}

TEST(ThreadPool, CoversEveryUnitOnceForAnyThreadsAndGrain) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const int64_t units : {0, 1, 2, 7, 64, 1001}) {
      for (const int64_t grain : {0, 1, 5, 2000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(units));
        pool.ParallelFor(units, grain, [&](int64_t begin, int64_t end, int thread) {
          ASSERT_TRUE(thread >= 0 && thread < threads);
          for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)]++;
        });
        for (const auto& count : seen) ASSERT_EQ(count, 1);
      }
    }
  }
}

TEST(ThreadPool, ManyShortCallsFinish) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 20000; ++i) {
    pool.ParallelFor(3, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
  }
  EXPECT_EQ(sum, 20000 * 3);
}

// The processor's own flags: what a library that wants speed sets for the thread that loads it.
void FlushDenormals(bool flush) {
#if defined(__x86_64__)
  constexpr unsigned kFlush = 0x8040;  // FTZ, DAZ
  _mm_setcsr(flush ? _mm_getcsr() | kFlush : _mm_getcsr() & ~kFlush);
#elif defined(__aarch64__)
  constexpr uint64_t kFlush = uint64_t{1} << 24;
  uint64_t control = 0;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  asm volatile("msr fpcr, %0" : : "r"(flush ? control | kFlush : control & ~kFlush));
#else
  (void)flush;
#endif
}

TEST(ThreadPool, EveryThreadKeepsDenormalsAndRoundsToNearest) {
  volatile float tiny = 0x1p-130f, one = 1.0f, quarter_ulp = 0x1p-25f;
  std::fesetround(FE_UPWARD);
  FlushDenormals(true);  // the pool's threads start with the flags of the thread that makes it
  ThreadPool pool(3);
  std::atomic<int> wrong{0};
  pool.ParallelFor(300, 1, [&](int64_t, int64_t, int) {
    if (tiny * one == 0 || std::fegetround() != FE_TONEAREST || one + quarter_ulp != one) wrong++;
  });
  std::fesetround(FE_TONEAREST);
  FlushDenormals(false);
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadPool, FarMoreThreadsThanCoresFinish) {
  ThreadPool pool(48);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 500; ++i) {
    pool.ParallelFor(100, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
  }
  EXPECT_EQ(sum, 500 * 4950);
}

// Processor time of this process, seconds.
double ProcessSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TEST(ThreadPool, CostsNothingWhenIdle) {
  ThreadPool pool(4);
  pool.ParallelFor(64, 1, [](int64_t, int64_t, int) {});
  std::this_thread::sleep_for(
      std::chrono::milliseconds(200));  // they spin for less, then they sleep
  // A thread that spins takes a whole window in every one; other work of the process (an emulator's
  // translation) does not.
  double least = 1;
  for (int window = 0; window < 5 && least > 0.01; ++window) {
    const double before = ProcessSeconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    least = std::min(least, ProcessSeconds() - before);
  }
  EXPECT_LT(least, 0.1);
}

TEST(ThreadPool, IdleThreadsHelpTheBusy) {
  ThreadPool pool(2);
  // Whoever has unit 0 waits until all others are done, so the other thread must take them.
  std::atomic<int> done{0};
  pool.ParallelFor(8, 1, [&](int64_t begin, int64_t, int) {
    while (begin == 0 && done < 7) std::this_thread::yield();
    ++done;
  });
  EXPECT_EQ(done, 8);
}

TEST(ThreadPool, RefusesAbsurdThreadCounts) {
  EXPECT_THROW(ThreadPool(0), Error);
  EXPECT_THROW(ThreadPool(10000), Error);
  EXPECT_GE(UsableCores(), 1);
}

}  // namespace
}  // namespace bakestone

#include "engine/mask_tasks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <vector>

namespace bakestone {
namespace {

TEST(MaskTasks, RunWhileNobodyWaitsForThem) {
  MaskTasks tasks;
  std::promise<std::thread::id> done;
  tasks.Start(1, [&](size_t) { done.set_value(std::this_thread::get_id()); });
  EXPECT_NE(done.get_future().get(), std::this_thread::get_id());
}

TEST(MaskTasks, EachRunsOnceAndHasEndedWhenFinishReturns) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    MaskTasks tasks;
    for (const size_t count : {0, 1, 2, 7, 64}) {
      for (int round = 0; round < 50; ++round) {
        std::vector<int> runs(count);  // not atomic: Finish orders what they did
        tasks.Start(count, [&](size_t i) { ++runs[i]; });
        tasks.Finish(pool);
        EXPECT_EQ(runs, std::vector<int>(count, 1));
      }
    }
  }
}

TEST(MaskTasks, WhatIsLeftIsThePools) {
  ThreadPool pool(2);
  MaskTasks tasks;
  std::promise<void> begun, go_on;
  std::atomic<int> others = 0;
  tasks.Start(5, [&](size_t i) {
    if (i > 0) {
      if (++others == 4) go_on.set_value();  // only the pool can have come so far
      return;
    }
    begun.set_value();
    go_on.get_future().wait();
  });
  begun.get_future().wait();
  tasks.Finish(pool);
  EXPECT_EQ(others, 4);
}

TEST(MaskTasks, AbandonedOnesAreNotBegunAndNoneRunsOn) {
  ThreadPool pool(1);
  MaskTasks tasks;
  std::promise<void> begun;
  std::atomic<bool> ended = false;
  std::atomic<int> runs = 0;
  tasks.Start(1000, [&](size_t) {
    if (runs++ > 0) return;
    begun.set_value();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ended = true;
  });
  begun.get_future().wait();
  tasks.Abandon();
  EXPECT_TRUE(ended);
  const int after = runs;
  tasks.Finish(pool);
  EXPECT_EQ(runs, after);
  tasks.Start(1, [&](size_t) { ++runs; });
  tasks.Finish(pool);
  EXPECT_EQ(runs, after + 1);
}

}  // namespace
}  // namespace bakestone

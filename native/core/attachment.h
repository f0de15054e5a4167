// One thread's side of a port: the control block it submits and receives through, its table of operations, the packets that only it may
// settle, and its place among the waiters. A private port has one, for ever; a shared port has one for each attached thread, and keeps
// that of a thread which has left until the last of its operations is over.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/abi.h"
#include "core/operation.h"
#include "core/packet_queue.h"
#include "core/waiters.h"

namespace cp {

struct Attachment {
  Attachment(uint32_t index_, uint64_t owner_, std::span<std::byte> block_, uint32_t max_operations)
      : index(index_),
        owner(owner_),
        control(reinterpret_cast<Control*>(block_.data())),
        block(block_.data()),
        operations(max_operations) {}

  const uint32_t index;  // in the port's list, 0 of a private port
  const uint64_t owner;  // id of the environment
  Control* control;
  std::byte* block;
  OperationTable operations;
  PacketQueue internal;       // packets of operations that settle promises or streams
  uint32_t live = 0;          // operations and tagged posts whose packet isn't delivered
  uint32_t in_kernel = 0;     // operations whose terminal packet isn't queued
  uint32_t rejected = 0;      // entries that named no free slot
  uint32_t deferred = 0;      // operations that were promised room and not handed over yet
  bool notifying = false;     // the notification of the event loop is on
  bool watches_idle = false;  // the loop stays alive for its operations: it is told when the last has ended
  bool gone = false;          // its thread has left
  struct Taken {
    Taken(uint64_t taken_as, const CompletionEntry& entry) : number(taken_as), packet(entry) {}
    uint64_t number;
    CompletionEntry packet;
  };
  std::vector<Taken> taken;             // the packets that its last get brought, by their numbers in the queue
  std::vector<ReturnedEntry> returned;  // slots and tags whose packets went to other threads
  std::vector<uint32_t> freed_memory;   // ids that nothing uses any more, for its thread to let go of
  Waiter waiter;
};

}  // namespace cp

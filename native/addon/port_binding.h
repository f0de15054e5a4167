// One port as JavaScript sees it: an object of plain functions. The binding lives until the last of those functions is collected; the port
// inside it ends with close, with the environment, or with the binding.
#pragma once

#include <napi.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "addon/environment.h"
#include "addon/event_loop.h"
#include "core/port.h"
#include "core/shared_ports.h"

namespace cp::addon {

class PortBinding {
 public:
  static napi_value Create(napi_env env, napi_callback_info info);
  // Joins a shared port by its token.
  static napi_value Attach(napi_env env, napi_callback_info info);
  ~PortBinding();
  PortBinding(const PortBinding&) = delete;
  PortBinding& operator=(const PortBinding&) = delete;

  // The thread has done with the port. `ending`: because its environment ends.
  void End(bool ending = false);
  Port* port() const { return port_.get(); }
  Attachment& attachment() const { return *attachment_; }

 private:
  explicit PortBinding(napi_env env) : env_(env) {}
  napi_value Functions();
  static PortBinding* New(napi_env env, std::shared_ptr<Port> port, Attachment* attachment, std::shared_ptr<ThreadNotifier> notifier,
                          napi_value control, napi_value arena);
  void Leave();
  void ReleaseMemory();

  static void OnFunctionGone(napi_env env, void* data, void* hint);
  static void OnWake(void* data);
  void Wake();
  void CallWake(bool* again);
  void FinishClose();
  void Release(bool ending = false);
  bool EnsureLoop(CreateError* error);

  static napi_value Enter(napi_env env, napi_callback_info info);
  static napi_value Post(napi_env env, napi_callback_info info);
  static napi_value Cancel(napi_env env, napi_callback_info info);
  static napi_value CancelHandle(napi_env env, napi_callback_info info);
  static napi_value Associate(napi_env env, napi_callback_info info);
  static napi_value RegisterMemory(napi_env env, napi_callback_info info);
  static napi_value UnregisterMemory(napi_env env, napi_callback_info info);
  static napi_value ArenaAllocate(napi_env env, napi_callback_info info);
  static napi_value ArenaRelease(napi_env env, napi_callback_info info);
  static napi_value OpenFile(napi_env env, napi_callback_info info);
  static napi_value StartLoop(napi_env env, napi_callback_info info);
  static napi_value Ref(napi_env env, napi_callback_info info);
  static napi_value Unref(napi_env env, napi_callback_info info);
  static napi_value WakeUp(napi_env env, napi_callback_info info);
  static napi_value Stats(napi_env env, napi_callback_info info);
  static napi_value GetToken(napi_env env, napi_callback_info info);
  static napi_value Detach(napi_env env, napi_callback_info info);
  static napi_value EndJob(napi_env env, napi_callback_info info);
  static napi_value SetBlocking(napi_env env, napi_callback_info info);
  static napi_value Reserve(napi_env env, napi_callback_info info);
  static napi_value Unreserve(napi_env env, napi_callback_info info);
  static napi_value HandleInfo(napi_env env, napi_callback_info info);
  static napi_value Close(napi_env env, napi_callback_info info);

  napi_env env_;
  Environment* environment_ = nullptr;  // null once the environment has ended
  std::shared_ptr<Port> port_;
  Attachment* attachment_ = nullptr;          // the port's; valid while port_ is set
  std::shared_ptr<ThreadNotifier> notifier_;  // of a shared port
  Token token_;
  std::unique_ptr<EventLoop> loop_;
  bool inverted_ = false;
  bool inverted_wanted_ = false;  // asked for; a thread has one at most
  bool closing_ = false;          // close was called in this thread
  bool thread_loop_ = false;
  uint32_t functions_ = 0;  // that JavaScript may still call
  napi_ref control_ref_ = nullptr;
  napi_ref arena_ref_ = nullptr;
  napi_ref on_wake_ = nullptr;
  napi_ref on_closed_ = nullptr;
  napi_async_context context_ = nullptr;
  std::unordered_map<uint32_t, napi_ref> memory_;
  bool referenced_ = false;
};

}  // namespace cp::addon

import { Worker, isMainThread } from 'node:worker_threads';
import { CompletionPort } from 'completion-port';
if (isMainThread) { for (let i=0;i<8;i++) new Worker(new URL(import.meta.url)); } else { const p = CompletionPort.create({backend: process.argv[2] ?? 'auto'}); p.getSync(); }

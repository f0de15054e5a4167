// No mutation: the wrapper itself must pass everything, or a mutant's failure would prove nothing.

import { wrap } from './wrap.mjs';

export default wrap();

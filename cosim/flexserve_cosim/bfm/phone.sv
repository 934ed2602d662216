// The simulated phone: the SoC between its memories and the engines through which software reaches its ports.
//
// `wake` toggles when the main loop has something for Python; `active` says which engines have work. Both are driven by
// dpi/main.cpp. Interrupts are collected for it in the order of flexserve_sw.machine.Interrupt.

module phone #(
    parameter int MEM_ID_WIDTH = 6
) (
    input  wire       clk,
    input  wire       rst,
    input  wire       wake,
    input  wire [5:0] active,
    output wire [7:0] interrupts
`include "phone_probe_ports.svh"
);

    wire [2:0] cpu_n_awid, cpu_n_bid, cpu_n_arid, cpu_n_rid;
    wire [31:0] cpu_n_awaddr, cpu_n_araddr;
    wire [7:0] cpu_n_awlen, cpu_n_arlen;
    wire [2:0] cpu_n_awprot, cpu_n_arprot;
    wire cpu_n_awvalid, cpu_n_awready, cpu_n_wvalid, cpu_n_wready, cpu_n_wlast, cpu_n_bvalid;
    wire cpu_n_arvalid, cpu_n_arready, cpu_n_rvalid, cpu_n_rlast;
    wire [127:0] cpu_n_wdata, cpu_n_rdata;
    wire [1:0] cpu_n_bresp, cpu_n_rresp;

    wire [2:0] cpu_s_awid, cpu_s_bid, cpu_s_arid, cpu_s_rid;
    wire [31:0] cpu_s_awaddr, cpu_s_araddr;
    wire [7:0] cpu_s_awlen, cpu_s_arlen;
    wire [2:0] cpu_s_awprot, cpu_s_arprot;
    wire cpu_s_awvalid, cpu_s_awready, cpu_s_wvalid, cpu_s_wready, cpu_s_wlast, cpu_s_bvalid;
    wire cpu_s_arvalid, cpu_s_arready, cpu_s_rvalid, cpu_s_rlast;
    wire [127:0] cpu_s_wdata, cpu_s_rdata;
    wire [1:0] cpu_s_bresp, cpu_s_rresp;

    wire [2:0] hostile_awid, hostile_bid, hostile_arid, hostile_rid;
    wire [31:0] hostile_awaddr, hostile_araddr;
    wire [7:0] hostile_awlen, hostile_arlen;
    wire [2:0] hostile_awprot, hostile_arprot;
    wire hostile_awvalid, hostile_awready, hostile_wvalid, hostile_wready, hostile_wlast, hostile_bvalid;
    wire hostile_arvalid, hostile_arready, hostile_rvalid, hostile_rlast;
    wire [127:0] hostile_wdata, hostile_rdata;
    wire [1:0] hostile_bresp, hostile_rresp;

    wire [31:0] cpu_n_reg_awaddr, cpu_n_reg_wdata, cpu_n_reg_araddr, cpu_n_reg_rdata;
    wire [3:0] cpu_n_reg_wstrb;
    wire [2:0] cpu_n_reg_awprot, cpu_n_reg_arprot;
    wire cpu_n_reg_awvalid, cpu_n_reg_awready, cpu_n_reg_wvalid, cpu_n_reg_wready, cpu_n_reg_bvalid;
    wire cpu_n_reg_arvalid, cpu_n_reg_arready, cpu_n_reg_rvalid;
    wire [1:0] cpu_n_reg_bresp, cpu_n_reg_rresp;

    wire [31:0] cpu_s_reg_awaddr, cpu_s_reg_wdata, cpu_s_reg_araddr, cpu_s_reg_rdata;
    wire [3:0] cpu_s_reg_wstrb;
    wire [2:0] cpu_s_reg_awprot, cpu_s_reg_arprot;
    wire cpu_s_reg_awvalid, cpu_s_reg_awready, cpu_s_reg_wvalid, cpu_s_reg_wready, cpu_s_reg_bvalid;
    wire cpu_s_reg_arvalid, cpu_s_reg_arready, cpu_s_reg_rvalid;
    wire [1:0] cpu_s_reg_bresp, cpu_s_reg_rresp;

    wire [31:0] hostile_reg_awaddr, hostile_reg_wdata, hostile_reg_araddr, hostile_reg_rdata;
    wire [3:0] hostile_reg_wstrb;
    wire [2:0] hostile_reg_awprot, hostile_reg_arprot;
    wire hostile_reg_awvalid, hostile_reg_awready, hostile_reg_wvalid, hostile_reg_wready, hostile_reg_bvalid;
    wire hostile_reg_arvalid, hostile_reg_arready, hostile_reg_rvalid;
    wire [1:0] hostile_reg_bresp, hostile_reg_rresp;

    wire [MEM_ID_WIDTH-1:0] mem_awid, mem_bid, mem_arid, mem_rid;
    wire [31:0] mem_awaddr, mem_araddr;
    wire [7:0] mem_awlen, mem_arlen;
    wire [2:0] mem_awsize, mem_arsize;
    wire [1:0] mem_awburst, mem_arburst, mem_bresp, mem_rresp;
    wire mem_awvalid, mem_awready, mem_wvalid, mem_wready, mem_wlast, mem_bvalid, mem_bready;
    wire mem_arvalid, mem_arready, mem_rvalid, mem_rready, mem_rlast;
    wire [127:0] mem_wdata, mem_rdata;
    wire [15:0] mem_wstrb;

    wire flash_req_valid, flash_req_ready, flash_req_to_flash;
    wire [31:0] flash_req_offset, flash_req_length;
    wire flash_rdata_valid, flash_rdata_ready, flash_wdata_valid, flash_wdata_ready, flash_wdone;
    wire [127:0] flash_rdata_data, flash_wdata_data;

    // Reset is a register here: fed straight from a port it would make Verilator evaluate whatever hangs on it twice.
    reg reset = 1'b1;
    always_ff @(posedge clk) reset <= rst;
    wire quiet = rst || reset;

    flexserve_soc soc (
        .clk(clk),
        .rst(reset),

        .s_axi_cpu_n_awid(cpu_n_awid),
        .s_axi_cpu_n_awaddr(cpu_n_awaddr),
        .s_axi_cpu_n_awlen(cpu_n_awlen),
        .s_axi_cpu_n_awsize(3'd4),
        .s_axi_cpu_n_awburst(2'd1),
        .s_axi_cpu_n_awprot(cpu_n_awprot),
        .s_axi_cpu_n_awuser(4'd0),
        .s_axi_cpu_n_awvalid(cpu_n_awvalid),
        .s_axi_cpu_n_awready(cpu_n_awready),
        .s_axi_cpu_n_arid(cpu_n_arid),
        .s_axi_cpu_n_araddr(cpu_n_araddr),
        .s_axi_cpu_n_arlen(cpu_n_arlen),
        .s_axi_cpu_n_arsize(3'd4),
        .s_axi_cpu_n_arburst(2'd1),
        .s_axi_cpu_n_arprot(cpu_n_arprot),
        .s_axi_cpu_n_aruser(4'd0),
        .s_axi_cpu_n_arvalid(cpu_n_arvalid),
        .s_axi_cpu_n_arready(cpu_n_arready),
        .s_axi_cpu_n_wdata(cpu_n_wdata),
        .s_axi_cpu_n_wstrb(16'hFFFF),
        .s_axi_cpu_n_wlast(cpu_n_wlast),
        .s_axi_cpu_n_wvalid(cpu_n_wvalid),
        .s_axi_cpu_n_wready(cpu_n_wready),
        .s_axi_cpu_n_bid(cpu_n_bid),
        .s_axi_cpu_n_bresp(cpu_n_bresp),
        .s_axi_cpu_n_bvalid(cpu_n_bvalid),
        .s_axi_cpu_n_bready(1'b1),
        .s_axi_cpu_n_rid(cpu_n_rid),
        .s_axi_cpu_n_rdata(cpu_n_rdata),
        .s_axi_cpu_n_rresp(cpu_n_rresp),
        .s_axi_cpu_n_rlast(cpu_n_rlast),
        .s_axi_cpu_n_rvalid(cpu_n_rvalid),
        .s_axi_cpu_n_rready(1'b1),

        .s_axi_cpu_s_awid(cpu_s_awid),
        .s_axi_cpu_s_awaddr(cpu_s_awaddr),
        .s_axi_cpu_s_awlen(cpu_s_awlen),
        .s_axi_cpu_s_awsize(3'd4),
        .s_axi_cpu_s_awburst(2'd1),
        .s_axi_cpu_s_awprot(cpu_s_awprot),
        .s_axi_cpu_s_awuser(4'd0),
        .s_axi_cpu_s_awvalid(cpu_s_awvalid),
        .s_axi_cpu_s_awready(cpu_s_awready),
        .s_axi_cpu_s_arid(cpu_s_arid),
        .s_axi_cpu_s_araddr(cpu_s_araddr),
        .s_axi_cpu_s_arlen(cpu_s_arlen),
        .s_axi_cpu_s_arsize(3'd4),
        .s_axi_cpu_s_arburst(2'd1),
        .s_axi_cpu_s_arprot(cpu_s_arprot),
        .s_axi_cpu_s_aruser(4'd0),
        .s_axi_cpu_s_arvalid(cpu_s_arvalid),
        .s_axi_cpu_s_arready(cpu_s_arready),
        .s_axi_cpu_s_wdata(cpu_s_wdata),
        .s_axi_cpu_s_wstrb(16'hFFFF),
        .s_axi_cpu_s_wlast(cpu_s_wlast),
        .s_axi_cpu_s_wvalid(cpu_s_wvalid),
        .s_axi_cpu_s_wready(cpu_s_wready),
        .s_axi_cpu_s_bid(cpu_s_bid),
        .s_axi_cpu_s_bresp(cpu_s_bresp),
        .s_axi_cpu_s_bvalid(cpu_s_bvalid),
        .s_axi_cpu_s_bready(1'b1),
        .s_axi_cpu_s_rid(cpu_s_rid),
        .s_axi_cpu_s_rdata(cpu_s_rdata),
        .s_axi_cpu_s_rresp(cpu_s_rresp),
        .s_axi_cpu_s_rlast(cpu_s_rlast),
        .s_axi_cpu_s_rvalid(cpu_s_rvalid),
        .s_axi_cpu_s_rready(1'b1),

        .s_axi_hostile_awid(hostile_awid),
        .s_axi_hostile_awaddr(hostile_awaddr),
        .s_axi_hostile_awlen(hostile_awlen),
        .s_axi_hostile_awsize(3'd4),
        .s_axi_hostile_awburst(2'd1),
        .s_axi_hostile_awprot(hostile_awprot),
        .s_axi_hostile_awuser(4'd0),
        .s_axi_hostile_awvalid(hostile_awvalid),
        .s_axi_hostile_awready(hostile_awready),
        .s_axi_hostile_arid(hostile_arid),
        .s_axi_hostile_araddr(hostile_araddr),
        .s_axi_hostile_arlen(hostile_arlen),
        .s_axi_hostile_arsize(3'd4),
        .s_axi_hostile_arburst(2'd1),
        .s_axi_hostile_arprot(hostile_arprot),
        .s_axi_hostile_aruser(4'd0),
        .s_axi_hostile_arvalid(hostile_arvalid),
        .s_axi_hostile_arready(hostile_arready),
        .s_axi_hostile_wdata(hostile_wdata),
        .s_axi_hostile_wstrb(16'hFFFF),
        .s_axi_hostile_wlast(hostile_wlast),
        .s_axi_hostile_wvalid(hostile_wvalid),
        .s_axi_hostile_wready(hostile_wready),
        .s_axi_hostile_bid(hostile_bid),
        .s_axi_hostile_bresp(hostile_bresp),
        .s_axi_hostile_bvalid(hostile_bvalid),
        .s_axi_hostile_bready(1'b1),
        .s_axi_hostile_rid(hostile_rid),
        .s_axi_hostile_rdata(hostile_rdata),
        .s_axi_hostile_rresp(hostile_rresp),
        .s_axi_hostile_rlast(hostile_rlast),
        .s_axi_hostile_rvalid(hostile_rvalid),
        .s_axi_hostile_rready(1'b1),

        .s_axil_cpu_n_awaddr(cpu_n_reg_awaddr),
        .s_axil_cpu_n_awprot(cpu_n_reg_awprot),
        .s_axil_cpu_n_awuser(4'd0),
        .s_axil_cpu_n_awvalid(cpu_n_reg_awvalid),
        .s_axil_cpu_n_awready(cpu_n_reg_awready),
        .s_axil_cpu_n_araddr(cpu_n_reg_araddr),
        .s_axil_cpu_n_arprot(cpu_n_reg_arprot),
        .s_axil_cpu_n_aruser(4'd0),
        .s_axil_cpu_n_arvalid(cpu_n_reg_arvalid),
        .s_axil_cpu_n_arready(cpu_n_reg_arready),
        .s_axil_cpu_n_wdata(cpu_n_reg_wdata),
        .s_axil_cpu_n_wstrb(cpu_n_reg_wstrb),
        .s_axil_cpu_n_wvalid(cpu_n_reg_wvalid),
        .s_axil_cpu_n_wready(cpu_n_reg_wready),
        .s_axil_cpu_n_bresp(cpu_n_reg_bresp),
        .s_axil_cpu_n_bvalid(cpu_n_reg_bvalid),
        .s_axil_cpu_n_bready(1'b1),
        .s_axil_cpu_n_rdata(cpu_n_reg_rdata),
        .s_axil_cpu_n_rresp(cpu_n_reg_rresp),
        .s_axil_cpu_n_rvalid(cpu_n_reg_rvalid),
        .s_axil_cpu_n_rready(1'b1),

        .s_axil_cpu_s_awaddr(cpu_s_reg_awaddr),
        .s_axil_cpu_s_awprot(cpu_s_reg_awprot),
        .s_axil_cpu_s_awuser(4'd0),
        .s_axil_cpu_s_awvalid(cpu_s_reg_awvalid),
        .s_axil_cpu_s_awready(cpu_s_reg_awready),
        .s_axil_cpu_s_araddr(cpu_s_reg_araddr),
        .s_axil_cpu_s_arprot(cpu_s_reg_arprot),
        .s_axil_cpu_s_aruser(4'd0),
        .s_axil_cpu_s_arvalid(cpu_s_reg_arvalid),
        .s_axil_cpu_s_arready(cpu_s_reg_arready),
        .s_axil_cpu_s_wdata(cpu_s_reg_wdata),
        .s_axil_cpu_s_wstrb(cpu_s_reg_wstrb),
        .s_axil_cpu_s_wvalid(cpu_s_reg_wvalid),
        .s_axil_cpu_s_wready(cpu_s_reg_wready),
        .s_axil_cpu_s_bresp(cpu_s_reg_bresp),
        .s_axil_cpu_s_bvalid(cpu_s_reg_bvalid),
        .s_axil_cpu_s_bready(1'b1),
        .s_axil_cpu_s_rdata(cpu_s_reg_rdata),
        .s_axil_cpu_s_rresp(cpu_s_reg_rresp),
        .s_axil_cpu_s_rvalid(cpu_s_reg_rvalid),
        .s_axil_cpu_s_rready(1'b1),

        .s_axil_hostile_awaddr(hostile_reg_awaddr),
        .s_axil_hostile_awprot(hostile_reg_awprot),
        .s_axil_hostile_awuser(4'd0),
        .s_axil_hostile_awvalid(hostile_reg_awvalid),
        .s_axil_hostile_awready(hostile_reg_awready),
        .s_axil_hostile_araddr(hostile_reg_araddr),
        .s_axil_hostile_arprot(hostile_reg_arprot),
        .s_axil_hostile_aruser(4'd0),
        .s_axil_hostile_arvalid(hostile_reg_arvalid),
        .s_axil_hostile_arready(hostile_reg_arready),
        .s_axil_hostile_wdata(hostile_reg_wdata),
        .s_axil_hostile_wstrb(hostile_reg_wstrb),
        .s_axil_hostile_wvalid(hostile_reg_wvalid),
        .s_axil_hostile_wready(hostile_reg_wready),
        .s_axil_hostile_bresp(hostile_reg_bresp),
        .s_axil_hostile_bvalid(hostile_reg_bvalid),
        .s_axil_hostile_bready(1'b1),
        .s_axil_hostile_rdata(hostile_reg_rdata),
        .s_axil_hostile_rresp(hostile_reg_rresp),
        .s_axil_hostile_rvalid(hostile_reg_rvalid),
        .s_axil_hostile_rready(1'b1),

        .m_axi_mem_awid(mem_awid),
        .m_axi_mem_awaddr(mem_awaddr),
        .m_axi_mem_awlen(mem_awlen),
        .m_axi_mem_awsize(mem_awsize),
        .m_axi_mem_awburst(mem_awburst),
        .m_axi_mem_awvalid(mem_awvalid),
        .m_axi_mem_awready(mem_awready),
        .m_axi_mem_wdata(mem_wdata),
        .m_axi_mem_wstrb(mem_wstrb),
        .m_axi_mem_wlast(mem_wlast),
        .m_axi_mem_wvalid(mem_wvalid),
        .m_axi_mem_wready(mem_wready),
        .m_axi_mem_bid(mem_bid),
        .m_axi_mem_bresp(mem_bresp),
        .m_axi_mem_bvalid(mem_bvalid),
        .m_axi_mem_bready(mem_bready),
        .m_axi_mem_arid(mem_arid),
        .m_axi_mem_araddr(mem_araddr),
        .m_axi_mem_arlen(mem_arlen),
        .m_axi_mem_arsize(mem_arsize),
        .m_axi_mem_arburst(mem_arburst),
        .m_axi_mem_arvalid(mem_arvalid),
        .m_axi_mem_arready(mem_arready),
        .m_axi_mem_rid(mem_rid),
        .m_axi_mem_rdata(mem_rdata),
        .m_axi_mem_rresp(mem_rresp),
        .m_axi_mem_rlast(mem_rlast),
        .m_axi_mem_rvalid(mem_rvalid),
        .m_axi_mem_rready(mem_rready),
        .flash_req_valid(flash_req_valid),
        .flash_req_ready(flash_req_ready),
        .flash_req_offset(flash_req_offset),
        .flash_req_length(flash_req_length),
        .flash_req_to_flash(flash_req_to_flash),
        .flash_rdata_valid(flash_rdata_valid),
        .flash_rdata_ready(flash_rdata_ready),
        .flash_rdata_data(flash_rdata_data),
        .flash_wdata_valid(flash_wdata_valid),
        .flash_wdata_ready(flash_wdata_ready),
        .flash_wdata_data(flash_wdata_data),
        .flash_wdone(flash_wdone),
        .irq_flex_n(interrupts[0]),
        .irq_flex_s(interrupts[1]),
        .irq_npu_n(interrupts[2]),
        .irq_npu_s(interrupts[3]),
        .irq_gate_n(interrupts[4]),
        .irq_gate_s(interrupts[5]),
        .irq_storage(interrupts[6]),
        .irq_tzc(interrupts[7])
`include "phone_probe_pins.svh"
    );


    burst_engine #(.PORT(0)) cpu_n_bursts (
        .clk(clk), .rst(quiet), .active(active[0]),
        .awid(cpu_n_awid), .awaddr(cpu_n_awaddr), .awlen(cpu_n_awlen), .awprot(cpu_n_awprot),
        .awvalid(cpu_n_awvalid), .awready(cpu_n_awready), .wdata(cpu_n_wdata), .wlast(cpu_n_wlast),
        .wvalid(cpu_n_wvalid), .wready(cpu_n_wready), .bid(cpu_n_bid), .bresp(cpu_n_bresp),
        .bvalid(cpu_n_bvalid), .arid(cpu_n_arid), .araddr(cpu_n_araddr), .arlen(cpu_n_arlen),
        .arprot(cpu_n_arprot), .arvalid(cpu_n_arvalid), .arready(cpu_n_arready), .rid(cpu_n_rid),
        .rdata(cpu_n_rdata), .rresp(cpu_n_rresp), .rlast(cpu_n_rlast), .rvalid(cpu_n_rvalid)
    );

    burst_engine #(.PORT(1)) cpu_s_bursts (
        .clk(clk), .rst(quiet), .active(active[1]),
        .awid(cpu_s_awid), .awaddr(cpu_s_awaddr), .awlen(cpu_s_awlen), .awprot(cpu_s_awprot),
        .awvalid(cpu_s_awvalid), .awready(cpu_s_awready), .wdata(cpu_s_wdata), .wlast(cpu_s_wlast),
        .wvalid(cpu_s_wvalid), .wready(cpu_s_wready), .bid(cpu_s_bid), .bresp(cpu_s_bresp),
        .bvalid(cpu_s_bvalid), .arid(cpu_s_arid), .araddr(cpu_s_araddr), .arlen(cpu_s_arlen),
        .arprot(cpu_s_arprot), .arvalid(cpu_s_arvalid), .arready(cpu_s_arready), .rid(cpu_s_rid),
        .rdata(cpu_s_rdata), .rresp(cpu_s_rresp), .rlast(cpu_s_rlast), .rvalid(cpu_s_rvalid)
    );

    burst_engine #(.PORT(2)) hostile_bursts (
        .clk(clk), .rst(quiet), .active(active[2]),
        .awid(hostile_awid), .awaddr(hostile_awaddr), .awlen(hostile_awlen), .awprot(hostile_awprot),
        .awvalid(hostile_awvalid), .awready(hostile_awready), .wdata(hostile_wdata), .wlast(hostile_wlast),
        .wvalid(hostile_wvalid), .wready(hostile_wready), .bid(hostile_bid), .bresp(hostile_bresp),
        .bvalid(hostile_bvalid), .arid(hostile_arid), .araddr(hostile_araddr), .arlen(hostile_arlen),
        .arprot(hostile_arprot), .arvalid(hostile_arvalid), .arready(hostile_arready), .rid(hostile_rid),
        .rdata(hostile_rdata), .rresp(hostile_rresp), .rlast(hostile_rlast), .rvalid(hostile_rvalid)
    );

    register_engine #(.PORT(0)) cpu_n_registers (
        .clk(clk), .rst(quiet), .active(active[3]),
        .awaddr(cpu_n_reg_awaddr), .awprot(cpu_n_reg_awprot), .awvalid(cpu_n_reg_awvalid),
        .awready(cpu_n_reg_awready), .wdata(cpu_n_reg_wdata), .wstrb(cpu_n_reg_wstrb),
        .wvalid(cpu_n_reg_wvalid), .wready(cpu_n_reg_wready), .bresp(cpu_n_reg_bresp),
        .bvalid(cpu_n_reg_bvalid), .araddr(cpu_n_reg_araddr), .arprot(cpu_n_reg_arprot),
        .arvalid(cpu_n_reg_arvalid), .arready(cpu_n_reg_arready), .rdata(cpu_n_reg_rdata),
        .rresp(cpu_n_reg_rresp), .rvalid(cpu_n_reg_rvalid)
    );

    register_engine #(.PORT(1)) cpu_s_registers (
        .clk(clk), .rst(quiet), .active(active[4]),
        .awaddr(cpu_s_reg_awaddr), .awprot(cpu_s_reg_awprot), .awvalid(cpu_s_reg_awvalid),
        .awready(cpu_s_reg_awready), .wdata(cpu_s_reg_wdata), .wstrb(cpu_s_reg_wstrb),
        .wvalid(cpu_s_reg_wvalid), .wready(cpu_s_reg_wready), .bresp(cpu_s_reg_bresp),
        .bvalid(cpu_s_reg_bvalid), .araddr(cpu_s_reg_araddr), .arprot(cpu_s_reg_arprot),
        .arvalid(cpu_s_reg_arvalid), .arready(cpu_s_reg_arready), .rdata(cpu_s_reg_rdata),
        .rresp(cpu_s_reg_rresp), .rvalid(cpu_s_reg_rvalid)
    );

    register_engine #(.PORT(2)) hostile_registers (
        .clk(clk), .rst(quiet), .active(active[5]),
        .awaddr(hostile_reg_awaddr), .awprot(hostile_reg_awprot), .awvalid(hostile_reg_awvalid),
        .awready(hostile_reg_awready), .wdata(hostile_reg_wdata), .wstrb(hostile_reg_wstrb),
        .wvalid(hostile_reg_wvalid), .wready(hostile_reg_wready), .bresp(hostile_reg_bresp),
        .bvalid(hostile_reg_bvalid), .araddr(hostile_reg_araddr), .arprot(hostile_reg_arprot),
        .arvalid(hostile_reg_arvalid), .arready(hostile_reg_arready), .rdata(hostile_reg_rdata),
        .rresp(hostile_reg_rresp), .rvalid(hostile_reg_rvalid)
    );

    dram #(.ID_WIDTH(MEM_ID_WIDTH)) memory (
        .clk(clk), .rst(quiet),
        .awid(mem_awid), .awaddr(mem_awaddr), .awlen(mem_awlen), .awsize(mem_awsize),
        .awburst(mem_awburst), .awvalid(mem_awvalid), .awready(mem_awready), .wdata(mem_wdata),
        .wstrb(mem_wstrb), .wlast(mem_wlast), .wvalid(mem_wvalid), .wready(mem_wready),
        .bid(mem_bid), .bresp(mem_bresp), .bvalid(mem_bvalid), .bready(mem_bready),
        .arid(mem_arid), .araddr(mem_araddr), .arlen(mem_arlen), .arsize(mem_arsize),
        .arburst(mem_arburst), .arvalid(mem_arvalid), .arready(mem_arready), .rid(mem_rid),
        .rdata(mem_rdata), .rresp(mem_rresp), .rlast(mem_rlast), .rvalid(mem_rvalid),
        .rready(mem_rready)
    );

    flash storage_flash (
        .clk(clk), .rst(quiet),
        .req_valid(flash_req_valid), .req_ready(flash_req_ready), .req_offset(flash_req_offset),
        .req_length(flash_req_length), .req_to_flash(flash_req_to_flash), .rdata_valid(flash_rdata_valid),
        .rdata_ready(flash_rdata_ready), .rdata_data(flash_rdata_data), .wdata_valid(flash_wdata_valid),
        .wdata_ready(flash_wdata_ready), .wdata_data(flash_wdata_data), .wdone(flash_wdone)
    );
endmodule
